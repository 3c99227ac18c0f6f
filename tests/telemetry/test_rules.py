"""The rules and dashboards: they hold together, and each alert goes off by what it is for."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import yaml

from tests.telemetry.pages import ROOT, asked, metrics_of

ALERTS = ROOT / "deploy/prometheus/rules/alerts.yml"


def alerts() -> list[dict[str, dict[str, str] | str]]:
    """Every alert."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_rules_are_rules() -> None:
    """promtool finds no fault in the rules and in the scrape configuration."""
    files = sorted(str(path) for path in ALERTS.parent.glob("*.yml"))
    checked = subprocess.run(["promtool", "check", "rules", *files], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    config = ROOT / "deploy/prometheus/prometheus.yml"
    checked = subprocess.run(["promtool", "check", "config", str(config)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_alert_goes_off_by_what_it_is_for() -> None:
    """promtool plays a series of values for every alert, which is silent before and fires after."""
    cases = ROOT / "deploy/prometheus/tests/alerts.yml"
    played = subprocess.run(["promtool", "test", "rules", str(cases)], capture_output=True, text=True)
    assert played.returncode == 0, played.stdout + played.stderr
    assert {case["name"] for case in yaml.safe_load(cases.read_text())["tests"]} == {rule["alert"] for rule in alerts()}


def test_each_alert_leads_to_its_section_of_the_runbook() -> None:
    """The link of every alert is a heading of docs/runbook.md."""
    text = (ROOT / "docs/runbook.md").read_text()
    anchors = {heading.lower() for heading in re.findall(r"(?m)^## (\w+)$", text)}
    for rule in alerts():
        annotations = rule["annotations"]
        assert isinstance(annotations, dict)
        page, _, anchor = annotations["runbook_url"].partition("#")
        assert page == "docs/runbook.md"
        assert anchor in anchors


def test_dashboards_are_those_of_the_code() -> None:
    """The committed JSON is what tools/dashboards.py writes."""
    checked = subprocess.run(
        [sys.executable, "-m", "tools.dashboards", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
    for path in (ROOT / "deploy/grafana/dashboards").glob("*.json"):
        assert json.loads(path.read_text())["panels"]


def test_every_metric_that_is_asked_for_is_declared() -> None:
    """No rule and no panel asks for a name that kit.signals does not know."""
    assert metrics_of(expression for _, expression in asked())
