"""The `observability` profile of docker-compose.yml: its files name each other as they are."""

from __future__ import annotations

from typing import Any

import yaml

from tests.telemetry.pages import ROOT

SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
# What the `opentelemetry-collector` distribution has of what we could use, as of its manifest at v0.139.0:
# https://github.com/open-telemetry/opentelemetry-collector-releases/blob/v0.139.0/distributions/otelcol/manifest.yaml
PARTS = {
    "receivers": {"otlp"},
    "processors": {"batch", "memory_limiter"},
    "exporters": {"debug", "otlp", "otlphttp"},
}


def document(path: str) -> Any:
    """A file of deploy/."""
    return yaml.safe_load((ROOT / "deploy" / path).read_text())


def mounts(service: str) -> dict[str, str]:
    """The files and folders of a container, as path there and path here."""
    pairs = (one.split(":")[:2] for one in SERVICES[service]["volumes"])
    return {there: here.removeprefix("./deploy/") for here, there in pairs}


def sources() -> dict[str, Any]:
    """Where Grafana asks, by uid."""
    found = document("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    return {source["uid"]: source for source in found}


def test_the_collector_has_what_its_pipelines_name() -> None:
    """Each pipeline is made of parts that are configured and in the image; memory is limited first, in all three."""
    config = document("otel/collector.yaml")
    assert set(config["service"]["pipelines"]) == {"traces", "metrics", "logs"}
    for pipeline in config["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter"
        for kind, known in PARTS.items():
            assert set(pipeline[kind]) <= set(config[kind])
            assert {name.partition("/")[0] for name in config[kind]} <= known
    assert mounts("collector")["/etc/otel/collector.yaml"] == "otel/collector.yaml"


def test_addresses_are_those_of_containers() -> None:
    """Collector, Grafana and Prometheus look for containers of the compose file, at the ports where these serve."""
    config = document("otel/collector.yaml")
    assert config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].endswith(":4317")
    assert config["exporters"]["otlp/jaeger"]["endpoint"].partition(":")[0] in SERVICES
    for source in sources().values():
        assert source["url"].removeprefix("http://").partition(":")[0] in SERVICES
    for job in document("prometheus/prometheus.yml")["scrape_configs"]:
        (found,) = job["dns_sd_configs"]
        (name,) = found["names"]
        assert job["job_name"] == f"millrace-{name}"
        port = SERVICES[name]["environment"].get(f"MILLRACE_{name.upper()}_METRICS_PORT", 8080)
        assert (found["type"], found["port"]) == ("A", port)


def test_prometheus_and_grafana_find_their_files() -> None:
    """The rules beside the configuration, and the dashboards where the provider looks, with the source they ask."""
    assert mounts("prometheus") == {"/etc/prometheus": "prometheus"}
    (provider,) = document("grafana/provisioning/dashboards/millrace.yml")["providers"]
    assert mounts("grafana")[provider["options"]["path"]] == "grafana/dashboards"
    assert mounts("grafana")["/etc/grafana/provisioning"] == "grafana/provisioning"
    (traced,) = sources()["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert traced["datasourceUid"] in sources()
    for path in (ROOT / "deploy/grafana/dashboards").glob("*.json"):
        panels = yaml.safe_load(path.read_text())["panels"]
        assert {panel["datasource"]["uid"] for panel in panels if "datasource" in panel} <= set(sources())
