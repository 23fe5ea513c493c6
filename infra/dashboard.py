"""Grafana dashboard, generated from a table of panels.

    python -m infra.dashboard > infra/monitoring/dashboard.json

`DASHBOARD_ROWS` is the table: titles, expressions and units. A test compares the committed file with it, and every
expression with the metrics that exist (docs/decisions/0211).
"""

import json
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

_NAMESPACE: Final = 'namespace=~"$namespace"'


@dataclass(frozen=True)
class Panel:
    """Panel of the dashboard: expressions by legend. `kind` is Grafana's name of the panel type."""

    title: str
    description: str
    expressions: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False


def rate_expression(metric: str, labels: str, match: str = "") -> str:
    """Return the rate per second of a counter, given without the prefix `sparsewell_`, summed by labels."""
    matchers = f"{_NAMESPACE},{match}" if match else _NAMESPACE
    return f"sum by ({labels}) (rate(sparsewell_{metric}{{{matchers}}}[$__rate_interval]))"


def quantile_expression(quantile: float, metric: str, labels: str = "", match: str = "") -> str:
    """Return a quantile of a histogram, given without the prefix `sparsewell_`."""
    buckets = rate_expression(f"{metric}_bucket", f"le, {labels}" if labels else "le", match)
    return f"histogram_quantile({quantile}, {buckets})"


def max_expression(metric: str, labels: str) -> str:
    """Return the largest value of a gauge over all processes that export it."""
    return f"max by ({labels}) (sparsewell_{metric}{{{_NAMESPACE}}})"


DASHBOARD_ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Objectives": (
        Panel(
            "Searches that failed, 1 h", "Objective: 0.1 % at most",
            {"failed": f"sparsewell:search_failures:ratio_rate1h{{{_NAMESPACE}}}"}, "percentunit", "stat", 4,
        ),
        Panel(
            "Searches over 100 ms, 1 h", "Objective: 1 % at most",
            {"slow": f"sparsewell:search_slow:ratio_rate1h{{{_NAMESPACE}}}"}, "percentunit", "stat", 4,
        ),
        Panel(
            "Oldest pending document", "Objective: under 5 minutes for 99 % of the time",
            {"{{index}}": max_expression("pending_oldest_age_seconds", "index")}, "s", "stat", 4,
        ),
        Panel(
            "Dead letters", "Documents that could not be encoded; /operate shows the reasons",
            {"{{index}}": max_expression("dead_documents", "index")}, "short", "stat", 4,
        ),
        Panel("Stores", "1: answers the sweeper", {
            "{{dependency}}": max_expression("dependency_up", "dependency"),
            "backlog counted": f"max(sparsewell_backlog_counted{{{_NAMESPACE}}})"}, "short", "stat", 4),
        Panel("Builds", "Processes by build", {"{{process}} {{version}} {{commit}}":
              f"count by (process, version, commit) (sparsewell_build_info{{{_NAMESPACE}}})"}, "short", "stat", 4),
    ),
    "Search": (
        Panel("Searches", "By mode; each search of a batch counts", {"{{mode}}":
              rate_expression("searches_total", "mode")}, "reqps"),
        Panel(
            "Time of a search", "Within the API, with the wait for OpenSearch",
            {f"p{int(q * 100)}": quantile_expression(q, "search_stage_duration_seconds", "", 'stage="total"')
             for q in (0.5, 0.9, 0.99)}, "s",
        ),
        Panel(
            "Mean time by stage", "Where a search spends its time",
            {"{{stage}}": rate_expression("search_stage_duration_seconds_sum", "stage", 'stage!~"total|engine"') + " / "
             + rate_expression("search_stage_duration_seconds_count", "stage", 'stage!~"total|engine"')},
            "s", stacked=True,
        ),
        Panel("Requests by route", "All requests", {"{{method}} {{route}}":
              rate_expression("http_requests_total", "method, route")}, "reqps"),
        Panel("Errors by code", "See docs/api/errors.md", {"{{code}}":
              rate_expression("problems_total", "code")}, "reqps"),
        Panel(
            "Fallbacks and partial answers", "Answers without a requested part; lists refused as incomplete",
            {"{{kind}} {{reason}}": rate_expression("search_fallbacks_total", "kind, reason"),
             "partial": f"sum(rate(sparsewell_search_incomplete_total{{{_NAMESPACE}}}[$__rate_interval]))",
             "overloaded": f"sum(rate(sparsewell_search_overloaded_total{{{_NAMESPACE}}}[$__rate_interval]))"}, "reqps",
        ),
        Panel("Requests in progress", "By process", {"{{instance}}":
              f"sum by (instance) (sparsewell_http_requests_in_progress{{{_NAMESPACE}}})"}),
        Panel("p99 by route", "From the request's header to the end of the answer", {"{{route}}":
              quantile_expression(0.99, "http_request_duration_seconds", "route")}, "s"),
        Panel("OpenSearch, p99 by API", "Measured by all processes", {"{{operation}}":
              quantile_expression(0.99, "opensearch_request_duration_seconds", "operation")}, "s"),
    ),
    "Ingestion": (
        Panel("Documents in", "Through the API and the bulk queue", {"{{outcome}}":
              rate_expression("ingested_documents_total", "outcome")}, "reqps"),
        Panel("Documents of encode messages", "By outcome", {"{{outcome}}":
              rate_expression("encode_documents_total", "outcome")}, "reqps"),
        Panel("Pending documents", "Documents without vectors", {"{{index}} {{generation}}":
              max_expression("pending_documents", "index, generation")}),
        Panel("Queues", "Waiting messages", {"{{queue}}": max_expression("queue_messages", "queue")}),
        Panel("Age of the next message", "If it grows, add workers", {"{{queue}}":
              max_expression("queue_oldest_message_age_seconds", "queue")}, "s"),
        Panel("Workers", "Seen recently, by encoder", {"{{encoder}}": max_expression("workers", "encoder")}),
        Panel("Wait in the queue, p95", "Measured by workers", {"{{task}}":
              quantile_expression(0.95, "queue_wait_seconds", "task")}, "s"),
        Panel("Run of the encoder, p50 and p99", "A run has 16 windows at most", {f"{{{{encoder}}}} p{int(q * 100)}":
              quantile_expression(q, "encode_run_duration_seconds", "encoder") for q in (0.5, 0.99)}, "s"),
        Panel("Pieces a run, median", "Encoders are fastest with full runs", {"{{encoder}}":
              quantile_expression(0.5, "encode_run_pieces", "encoder")}),
        Panel("Messages", "By task and outcome", {"{{task}} {{outcome}}":
              rate_expression("tasks_total", "task, outcome")}, "reqps"),
        Panel("Time of a message, p99", "Budget 30 s, limit 300 s", {"{{task}}":
              quantile_expression(0.99, "task_duration_seconds", "task")}, "s"),
        Panel("Bulk items", "superseded: a newer version exists; repeated: sent again", {"{{outcome}}":
              rate_expression("bulk_items_total", "outcome")}, "reqps"),
        Panel("Dead letters", "By reason", {"{{code}}": rate_expression("dead_letters_total", "code")}, "reqps"),
        Panel("Chapters, p95", "Time for one talk", {"{{engine}}":
              quantile_expression(0.95, "chapters_duration_seconds", "engine")}, "s"),
        Panel("Without chapters, without dense vectors", "Documents that were encoded without them", {
            "{{engine}} {{code}}": rate_expression("chapters_failures_total", "engine, code"),
            "dense {{code}}": rate_expression("dense_failures_total", "code")}, "reqps"),
        Panel("Not enqueued", "Redis refused the message; the sweeper enqueues the documents later", {"times":
              f"sum(rate(sparsewell_not_enqueued_total{{{_NAMESPACE}}}[$__rate_interval]))"}, "reqps"),
    ),
    "Sweeper, reindexing, processes": (
        Panel("Sweeper", "Documents by task and outcome", {"{{task}} {{outcome}}":
              rate_expression("sweeper_documents_total", "task, outcome")}, "reqps"),
        Panel("Time since a task ended", "More than a sweep interval: the task is stuck", {"{{task}}":
              f"time() - {max_expression('sweeper_last_success_timestamp_seconds', 'task')}"}, "s"),
        Panel("Failed passes", "By reason", {"{{task}} {{outcome}}":
              rate_expression("sweeper_passes_total", "task, outcome", 'outcome!="done"')}, "reqps"),
        Panel("Reindexing: copied", "Documents copied to the next generation", {"{{index}} {{step}}":
              max_expression("reindex_copied_documents", "index, step")}),
        Panel("Reindexing: idle", "Time since the last report", {"{{index}} {{step}}":
              max_expression("reindex_idle_seconds", "index, step")}, "s"),
        Panel("API processes ready", "By their last probe", {"{{instance}}":
              max_expression("ready", "instance")}),
        Panel("Indexes without a query table", "Refused by an API process, by encoder", {"{{encoder}}":
              max_expression("unserved_indexes", "encoder")}),
        Panel("Clocks", "Of each API's host, ahead of Redis's", {"{{instance}}":
              max_expression("clock_lead_seconds", "instance")}, "s"),
        Panel("Writes onto versions ahead", "Stored more than 60 s ahead of the clock", {"{{instance}}":
              rate_expression("versions_ahead_total", "instance")}, "wps"),
        Panel("Errors of OpenSearch", "Unreachable, late or overloaded", {"{{operation}} {{code}}":
              rate_expression("opensearch_errors_total", "operation, code")}, "reqps"),
        Panel("Memory", "Resident memory; for workers, of the parent process", {"{{instance}}":
              f"process_resident_memory_bytes{{{_NAMESPACE}}} and on (instance) sparsewell_build_info"},
              "bytes", width=12),
        Panel("Processor", "Processor seconds per second", {"{{instance}}":
              f"rate(process_cpu_seconds_total{{{_NAMESPACE}}}[$__rate_interval]) "
              "and on (instance) sparsewell_build_info"},
              width=12),
    ),
}  # fmt: skip

_DATA_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
_GRID_COLUMNS: Final = 24


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 30} if panel.stacked else {"fillOpacity": 8}
    defaults: dict[str, Any] = {"unit": panel.unit} | ({"custom": custom} if panel.kind == "timeseries" else {})
    targets = [
        {
            "refId": chr(ord("A") + position),
            "expr": expression,
            "legendFormat": legend,
            "datasource": _DATA_SOURCE,
            "exemplar": True,
        }
        for position, (legend, expression) in enumerate(panel.expressions.items())
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATA_SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": 4 if panel.kind == "stat" else 7},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": targets,
    }


def build_dashboard() -> dict[str, Any]:
    """Return the dashboard in the form that Grafana imports."""
    panels: list[dict[str, Any]] = []
    numbers, y = count(1), 0
    for title, row in DASHBOARD_ROWS.items():
        panels.append(
            {
                "id": next(numbers),
                "type": "row",
                "title": title,
                "gridPos": {"x": 0, "y": y, "w": _GRID_COLUMNS, "h": 1},
            }
        )
        x, y = 0, y + 1
        for panel in row:
            if x + panel.width > _GRID_COLUMNS:
                x, y = 0, y + panels[-1]["gridPos"]["h"]
            panels.append(_panel(panel, next(numbers), x, y))
            x += panel.width
        y += panels[-1]["gridPos"]["h"]
    namespaces = "label_values(sparsewell_build_info, namespace)"
    return {
        "uid": "sparsewell",
        "title": "sparsewell",
        "tags": ["sparsewell"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"},
                {
                    "name": "namespace",
                    "label": "Namespace",
                    "type": "query",
                    "datasource": _DATA_SOURCE,
                    "query": namespaces,
                    "includeAll": True,
                    # Outside Kubernetes the label is missing; ".*" matches a missing label as well.
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                    "refresh": 2,
                },
            ]
        },
        "panels": panels,
    }


def main() -> None:
    """Print the dashboard as JSON."""
    print(json.dumps(build_dashboard(), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
