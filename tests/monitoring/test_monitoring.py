"""Check alerts and dashboard with promtool, and compare them with the existing metrics and the runbook."""

import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.utils import floatToGoString

from indexer.queue_metrics import METRIC_FAMILIES
from infra.dashboard import build_dashboard
from query_api.search.executor import STAGES
from services.opensearch.bulk import WriteOutcome
from services.opensearch.reindex import ReindexStep
from services.telemetry import metrics

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "infra" / "monitoring"
HERE = Path(__file__).parent
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
PANELS = [panel for panel in build_dashboard()["panels"] if panel["type"] != "row"]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [one["expr"] for panel in PANELS for one in panel["targets"]]
# Labels that Prometheus adds, or that metrics of other sources have.
ADDED = {"namespace", "instance", "le", "job", "pod"}
TESTS = ["rules_test.yml", "rules_of_days_test.yml"]

# Labels of each sample by its name.
SAMPLES: dict[str, set[str]] = {
    "sparsewell_build_info": {"version", "commit", "process"},
    **{name: set(labels) for name, (_, labels) in METRIC_FAMILIES.items()},
}
for one in vars(metrics).values():
    if isinstance(one, MetricWrapperBase):
        (family,) = one.describe()
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}[family.type]
        labels = set(one._labelnames)  # noqa: SLF001 - prometheus_client shows them nowhere else
        SAMPLES |= {family.name + ending: labels for ending in endings}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_rules() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(MONITORING / "rules.yml"))


@pytest.mark.parametrize("file", TESTS)
def test_alerts_fire_when_they_should_and_only_then(file: str) -> None:
    promtool("test", "rules", str(HERE / file))


def test_every_alert_is_made_to_fire_and_is_quiet_while_all_is_well() -> None:
    outcomes = [
        (alert["alertname"], bool(alert.get("exp_alerts")))
        for file in TESTS
        for case in yaml.safe_load((HERE / file).read_text())["tests"]
        for alert in case["alert_rule_test"]
    ]
    every = {rule["alert"] for rule in ALERTS}
    for fires in (True, False):
        assert {name for name, fired in outcomes if fired is fires} == every


def test_every_expression_of_the_dashboard_can_be_read(tmp_path: Path) -> None:
    expressions = [one["expr"] for panel in PANELS for one in panel["targets"]]
    rules = [
        {"record": f"panel:{at}", "expr": one.replace("$__rate_interval", "5m").replace("$namespace", ".*")}
        for at, one in enumerate(expressions)
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(file))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_only_metrics_and_labels_that_exist_are_asked_for(expression: str) -> None:
    for name in re.findall(r"sparsewell:[a-z0-9_:]+", expression):
        assert name in RECORDED
    for name, matchers in re.findall(r"\b(sparsewell_[a-z_]+)(?:\{([^}]*(?:\{[^}]*\}[^}]*)*)\})?", expression):
        assert name in SAMPLES, name
        labels = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', matchers))
        assert labels <= SAMPLES[name] | ADDED, name


def values_that_exist() -> dict[str, set[str]]:
    """Return the values that processes give each label, for the labels that rules and panels select."""
    routes = set(json.loads((ROOT / "docs/api/openapi.json").read_text())["paths"])
    errors = (ROOT / "docs" / "api" / "errors.md").read_text().partition("\n## Codes of single")[0]
    codes = {code for row in errors.splitlines() if row.startswith("| ") for code in row.split("|")[2].split("`")[1::2]}
    outcomes = {"mismatch", "done", *(outcome.value for outcome in WriteOutcome)}
    return {
        "route": routes,
        "code": codes,
        "outcome": outcomes,
        "status": {"200", "503"},
        "method": {"GET", "POST", "PUT", "DELETE"},
        "le": {floatToGoString(bound) for bound in (*metrics.REQUEST_BOUNDS, math.inf)},
        "stage": set(STAGES),
        "step": set(get_args(ReindexStep)),
        "process": {"api", "worker", "sweeper", "models"},
        "task": {"sweeping"},
        "kind": {"rerank"},
    }


@pytest.mark.parametrize("rule", RULES, ids=[rule.get("alert", rule.get("record")) for rule in RULES])
def test_only_values_that_exist_are_asked_for(rule: dict[str, Any]) -> None:
    """After a rename of a code, a route or a step, its alert would never fire."""
    known = values_that_exist()
    for label, operator, wanted in re.findall(r'(\w+)\s*(=~|=)\s*"([^"]*)"', rule["expr"]):
        assert operator == "=~" or wanted in known[label], (label, wanted)
        for one in wanted.split("|") if operator == "=~" else ():
            assert any(re.fullmatch(one, value) for value in known[label]), (label, one)


def test_processes_and_tasks_have_these_names() -> None:
    source = "\n".join(path.read_text() for name in ("cli", "indexer") for path in (ROOT / name).glob("*.py"))
    for name in values_that_exist()["process"]:
        assert f'expose_metrics(settings, "{name}"' in source
    assert 'PeriodicTask("sweeping", ' in source
    assert 'SEARCH_FALLBACKS.labels("rerank", ' in (ROOT / "query_api/search/rerank.py").read_text()
    assert '{"mismatch": len(message.ids)}' in (ROOT / "indexer/encode_task.py").read_text()


def test_grouped_labels_exist() -> None:
    known = ADDED.union(*SAMPLES.values())
    for expression in EXPRESSIONS:
        for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
            assert {label.strip() for label in labels.split(",")} <= known, expression


def test_series_of_the_tests_are_those_of_processes() -> None:
    for file in TESTS:
        for case in yaml.safe_load((HERE / file).read_text())["tests"]:
            for one in case["input_series"]:
                name, _, labels = one["series"].partition("{")
                if name == "up":
                    continue
                assert name in SAMPLES, name
                assert set(re.findall(r'(\w+)="', labels)) <= SAMPLES[name] | ADDED, one["series"]


@pytest.mark.parametrize("alert", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_each_alert_has_a_section_in_the_runbook(alert: dict[str, Any]) -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert path == "docs/runbook.md"
    sections = {title.lower() for title in re.findall(r"^### (\w+)$", runbook, re.MULTILINE)}
    assert anchor in sections
    assert f"`{alert['alert']}`" in runbook or alert["alert"].lower() == anchor
    assert alert["labels"]["severity"] in ("page", "ticket")


def test_the_runbook_has_no_other_sections_and_its_links_lead_somewhere() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    sections = {title.lower() for title in re.findall(r"^### (\w+)$", runbook, re.MULTILINE)}
    assert sections == {rule["annotations"]["runbook_url"].partition("#")[2] for rule in ALERTS}
    assert set(re.findall(r"\]\(#(\w+)\)", runbook)) <= sections


def test_the_committed_dashboard_is_the_one_that_is_made() -> None:
    assert json.loads((MONITORING / "dashboard.json").read_text()) == build_dashboard()


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(one["expr"] for panel in PANELS for one in panel["targets"])
    bases = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in SAMPLES}
    assert {name for name in bases if name not in shown} == set()


def test_panels_do_not_lie_on_one_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in build_dashboard()["panels"]:
        place = panel["gridPos"]
        columns, lines = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        cells = {(x, y) for x in columns for y in lines}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
