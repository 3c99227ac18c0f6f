"""The policy of deploy/kubernetes: what holds for every object of every overlay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from kit.config import Settings, load
from services.cache.config import CacheSettings
from services.edge.config import EdgeSettings
from services.inference.config import InferenceSettings
from services.safety.config import SafetySettings
from tests.deploy.kustomize import NAMES, Object, named, of_kind, pods, rendered, variables
from tests.fakes.certificates import Authority

# Kinds that others define; they come with no schema of Kubernetes.
CUSTOM = {"cert-manager.io/v1", "monitoring.coreos.com/v1"}
# The oldest release that is still maintained by most providers, and the newest that is known here.
RELEASES = ("1.31", "1.37")
SETTINGS: dict[str, type[Settings]] = {
    "edge": EdgeSettings,
    "inference": InferenceSettings,
    "cache": CacheSettings,
    "safety": SafetySettings,
}
# What a pod is given after its drain, for closing files and sending telemetry.
MARGIN_S = 5.0

POD_TEMPLATES = [
    pytest.param(overlay, one, id=f"{overlay}-{one['kind']}-{one['metadata']['name']}") for overlay, one in pods()
]
each_overlay = pytest.mark.parametrize("overlay", NAMES)
each_pod = pytest.mark.parametrize(("overlay", "workload"), POD_TEMPLATES)


def spec_of(workload: Object) -> Object:
    """The pod of a workload."""
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def container_of(workload: Object) -> Object:
    """Its one container."""
    (container,) = spec_of(workload)["containers"]
    assert isinstance(container, dict)
    return container


def mounted_models(overlay: str, workload: Object, folder: Path) -> str:
    """Writes the models file to where its map is mounted, below `folder`, and returns the path the setting names there.

    Another service may be given the variable with no mount: it reads no such file, and neither does its test.
    """
    path = Path(variables(overlay, workload)["MILLRACE_INFERENCE_MODELS_FILE"])
    (models,) = [one for one in of_kind(overlay, "ConfigMap") if "models.yaml" in one["data"]]
    names = {
        one["name"]
        for one in spec_of(workload)["volumes"]
        if one.get("configMap") == {"name": models["metadata"]["name"]}
    }
    for mount in container_of(workload)["volumeMounts"]:
        if mount["name"] in names:
            target = folder / Path(mount["mountPath"]).relative_to("/")
            target.mkdir(parents=True)
            for name, text in models["data"].items():
                (target / name).write_text(text)
    return str(folder / path.relative_to("/"))


@each_overlay
@pytest.mark.parametrize("release", RELEASES)
def test_every_object_is_as_kubernetes_defines_it(overlay: str, release: str) -> None:
    """Strictly: no field is unknown, none is of another type, none that is required is absent."""
    own = [one for one in rendered(overlay) if one["apiVersion"] not in CUSTOM]

    assert len(own) > 20
    for one in own:
        kubernetes_validate.validate(one, release, strict=True)


@each_overlay
def test_nothing_leaves_the_namespace(overlay: str) -> None:
    """Every object but the namespace itself is in the overlay's namespace, which refuses pods that want too much."""
    (namespace,) = of_kind(overlay, "Namespace")
    labels = namespace["metadata"]["labels"]

    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for one in rendered(overlay):
        assert one is namespace or one["metadata"]["namespace"] == namespace["metadata"]["name"]


@each_pod
def test_pods_are_restricted(overlay: str, workload: Object) -> None:
    """Unprivileged, read-only, without capabilities, and without a token of the cluster's."""
    pod, container = spec_of(workload), container_of(workload)

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] >= 10_000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]


@each_pod
def test_pods_say_what_they_need(overlay: str, workload: Object) -> None:
    """CPU and memory are asked for and memory is bounded; CPU is not, since a throttled stream stutters."""
    resources = container_of(workload)["resources"]

    assert resources["requests"].keys() >= {"cpu", "memory"}
    assert "memory" in resources["limits"]
    assert "cpu" not in resources["limits"]


@each_pod
def test_images_have_a_version(overlay: str, workload: Object) -> None:
    """A tag that says which, never `latest`: what runs is what was tested."""
    image = container_of(workload)["image"]
    tag = image.rpartition("/")[2].partition(":")[2]

    assert "@sha256:" in image or tag not in ("", "latest")


@each_pod
def test_services_are_probed_by_name(overlay: str, workload: Object) -> None:
    """Start, readiness and life are three questions; gRPC services are asked by gRPC, about themselves by full name."""
    if workload["kind"] == "Job":
        pytest.skip("a job ends by itself")
    container, name = container_of(workload), workload["metadata"]["name"]
    probes = {which: container[f"{which}Probe"] for which in ("startup", "readiness", "liveness")}
    if name in ("inference", "cache", "safety"):
        port = int(variables(overlay, workload)[f"MILLRACE_{name.upper()}_HEALTH_PORT"])
        service = f"millrace.{name}.v1.{name.capitalize()}Service"
        asked = {which: probe["grpc"] for which, probe in probes.items()}
        assert asked == {
            "startup": {"port": port, "service": service},
            "readiness": {"port": port, "service": service},
            "liveness": {"port": port, "service": ""},
        }
    patience_s = {which: probe["periodSeconds"] * probe.get("failureThreshold", 3) for which, probe in probes.items()}

    assert patience_s["startup"] >= 30
    # A process that is merely busy is taken out of rotation long before it is killed.
    assert patience_s["liveness"] > patience_s["readiness"]


@each_pod
def test_the_kubelet_waits_for_the_drain(overlay: str, workload: Object) -> None:
    """A pod is killed only after every stream had its grace."""
    name = workload["metadata"]["name"]
    if name not in SETTINGS:
        pytest.skip("not one of ours")
    said = {key.removeprefix(f"MILLRACE_{name.upper()}_"): one for key, one in variables(overlay, workload).items()}
    drain_s = float(said["GRACE_S"]) + float(said.get("ANNOUNCE_S", 0)) + float(said.get("DRAIN_DELAY_S", 0))

    assert spec_of(workload)["terminationGracePeriodSeconds"] >= drain_s + MARGIN_S


@each_pod
def test_settings_are_those_of_the_services(
    overlay: str, workload: Object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each service would start with what it is given: no variable is misspelt, no value out of range."""
    name = workload["metadata"]["name"]
    if name not in SETTINGS:
        pytest.skip("not one of ours")
    Authority(tmp_path).issue("tls")
    files = {"tls.crt": "tls.pem", "tls.key": "tls.key", "ca.crt": "ca.pem"}
    environ = {
        key: str(tmp_path / files[Path(one).name]) if one.startswith("/etc/millrace/tls/") else one
        for key, one in variables(overlay, workload).items()
    }
    if "MILLRACE_INFERENCE_MODELS_FILE" in environ:
        environ["MILLRACE_INFERENCE_MODELS_FILE"] = mounted_models(overlay, workload, tmp_path)
    # What only the secret has, and the service cannot do without.
    environ["MILLRACE_INFERENCE_QUOTAS_REDIS_URL"] = "rediss://default:secret@redis.example.com:6380"

    settings = load(SETTINGS[name], environ)

    assert settings.model_dump()["metrics_port"] == 9090
    # Links would set MILLRACE_... variables, if a service had such a name.
    assert spec_of(workload)["enableServiceLinks"] is False


@each_overlay
def test_services_are_balanced_over_by_name(overlay: str) -> None:
    """Whoever is called over gRPC has a headless service, and callers ask DNS for all of its pods, often enough."""
    (settings,) = [one["data"] for one in of_kind(overlay, "ConfigMap") if "MILLRACE_CACHE_STORE" in one["data"]]
    targets = {key: one for key, one in settings.items() if key.endswith("_TARGET")}
    ports = {"inference": 50051, "cache": 50052, "safety": 50053}

    assert len(targets) == 3
    for key, target in targets.items():
        callee = key.split("_")[-2].lower()
        assert target == f"dns:///{callee}:{ports[callee]}"
        assert named(overlay, "Service", callee)["spec"]["clusterIP"] == "None"
        # New replicas get calls within ten seconds, and no stream is cut by the age of its connection.
        assert float(settings[f"MILLRACE_{callee.upper()}_MAX_CONNECTION_AGE_S"]) < 10
        assert float(settings[f"MILLRACE_{callee.upper()}_MAX_CONNECTION_AGE_GRACE_S"]) >= 3600


@each_overlay
def test_only_the_edge_is_reachable_from_outside(overlay: str) -> None:
    """Nobody else has a door in the network policies, a load balancer or an ingress; the rest is refused."""
    policies = of_kind(overlay, "NetworkPolicy")
    everybody = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    # An ingress rule without `from` lets everybody in.
    open_to_all = {
        one["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        for one in policies
        if any("from" not in rule for rule in one["spec"].get("ingress", []))
    }
    backends = {
        path["backend"]["service"]["name"]
        for ingress in of_kind(overlay, "Ingress")
        for rule in ingress["spec"]["rules"]
        for path in rule["http"]["paths"]
    }

    assert everybody in [one["spec"] for one in policies]
    assert open_to_all == {"edge"}
    assert backends <= {"edge"}
    assert all(one["spec"].get("type", "ClusterIP") == "ClusterIP" for one in of_kind(overlay, "Service"))


@each_overlay
@pytest.mark.parametrize("callee", ["cache", "safety"])
def test_cache_and_safety_hear_inference_alone(overlay: str, callee: str) -> None:
    """Nothing else may send them a call, the edge neither."""
    (rule,) = named(overlay, "NetworkPolicy", callee)["spec"]["ingress"]

    assert rule["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "inference"}}}]


@each_overlay
def test_every_service_bears_the_loss_of_a_node(overlay: str) -> None:
    """One at a time is disrupted, and replicas are spread over nodes and zones."""
    for name in SETTINGS:
        assert named(overlay, "PodDisruptionBudget", name)["spec"]["maxUnavailable"] == 1
        kind = "StatefulSet" if name == "inference" else "Deployment"
        spread = spec_of(named(overlay, kind, name))["topologySpreadConstraints"]
        assert {one["topologyKey"] for one in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}


@pytest.mark.parametrize("overlay", ["prod", "gpu-vllm"])
def test_production_scales_and_asks_who_calls(overlay: str) -> None:
    """Every service has an autoscaler of two or more, inference one that sees its queue; calls need keys and TLS."""
    scalers = {one["metadata"]["name"]: one["spec"] for one in of_kind(overlay, "HorizontalPodAutoscaler")}
    inference = variables(overlay, named(overlay, "StatefulSet", "inference"))
    seen = {one["pods"]["metric"]["name"] for one in scalers["inference"]["metrics"] if one["type"] == "Pods"}

    assert scalers.keys() == SETTINGS.keys()
    assert all(spec["minReplicas"] >= 2 for spec in scalers.values())
    assert seen == {"rpc_server_active_calls", "millrace_local_waiting_requests"}
    assert inference["MILLRACE_INFERENCE_ENVIRONMENT"] == "production"
    assert inference["MILLRACE_INFERENCE_ACCESS_MODE"] == "required"
    assert {key for key in inference if key.endswith("_TLS_CLIENT_CA_FILE")} == {
        f"MILLRACE_{name}_TLS_CLIENT_CA_FILE" for name in ("INFERENCE", "CACHE", "SAFETY")
    }


@pytest.mark.parametrize("overlay", ["prod", "gpu-vllm"])
def test_production_keeps_no_secret(overlay: str) -> None:
    """Secrets are named, and made elsewhere; each certificate has the name that its callers expect."""
    certificates = {one["metadata"]["name"]: one["spec"] for one in of_kind(overlay, "Certificate")}

    assert of_kind(overlay, "Secret") == []
    for name in SETTINGS:
        assert certificates[name]["dnsNames"] == [name]
        assert certificates[name]["secretName"] == f"{name}-tls"


def secrets_of(workload: Object) -> set[str]:
    """The secrets that a workload reads as variables, without what kustomize adds to names that it made."""
    sources: list[dict[str, Any]] = container_of(workload).get("envFrom", [])
    names = {source["secretRef"]["name"] for source in sources if "secretRef" in source}
    return {"-".join(name.split("-")[:2]) for name in names}


@each_overlay
def test_secrets_are_read_by_those_who_need_them(overlay: str) -> None:
    """The edge, which faces the world, holds none."""
    held = {one["metadata"]["name"]: secrets_of(one) for one in of_kind(overlay, "Deployment", "StatefulSet")}

    assert held["edge"] == set()
    assert held["inference"] == {"inference-secrets"}
    assert held["cache"] == {"cache-secrets"}
