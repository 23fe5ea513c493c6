"""Writes the Grafana dashboard: `python -m infra.monitoring.dashboard > infra/monitoring/dashboard.json`.

The panels are a table (`panels`) and not two thousand lines by hand. A test holds the committed file against it, and
every expression against the metrics that exist.

The panels of the Grafana dashboard as a table: what each shows, and the expression that it is read from.
"""

import json
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

_NAMESPACE_MATCHER: Final = 'namespace=~"$namespace"'


@dataclass(frozen=True)
class Panel:
    """One panel: expressions by their legends. `kind`: as Grafana calls it."""

    title: str
    about: str
    expressions: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False


def rate_expression(metric: str, by: str, match: str = "") -> str:
    """A counter of ours (its name without `sparsewell_`) a second, summed by labels."""
    matchers = f"{_NAMESPACE_MATCHER},{match}" if match else _NAMESPACE_MATCHER
    return f"sum by ({by}) (rate(sparsewell_{metric}{{{matchers}}}[$__rate_interval]))"


def quantile_expression(share: float, metric: str, by: str = "", match: str = "") -> str:
    """A quantile of a histogram of ours."""
    return f"histogram_quantile({share}, {rate_expression(f'{metric}_bucket', f'le, {by}' if by else 'le', match)})"


def max_expression(metric: str, by: str) -> str:
    """What the sweeper sees: of several the largest."""
    return f"max by ({by}) (sparsewell_{metric}{{{_NAMESPACE_MATCHER}}})"


DASHBOARD_ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Objectives": (
        Panel(
            "Searches that failed, 1 h", "Objective: 0.1 % at most",
            {"failed": f"sparsewell:search_failures:ratio_rate1h{{{_NAMESPACE_MATCHER}}}"}, "percentunit", "stat", 4,
        ),
        Panel(
            "Searches over 100 ms, 1 h", "Objective: 1 % at most",
            {"slow": f"sparsewell:search_slow:ratio_rate1h{{{_NAMESPACE_MATCHER}}}"}, "percentunit", "stat", 4,
        ),
        Panel(
            "Oldest pending document", "Objective: under 5 minutes for 99 % of the time",
            {"{{index}}": max_expression("pending_oldest_age_seconds", "index")}, "s", "stat", 4,
        ),
        Panel(
            "Dead documents", "Could not be encoded: /operate says why",
            {"{{index}}": max_expression("dead_documents", "index")}, "short", "stat", 4,
        ),
        Panel("Stores", "1: answered the sweeper", {"{{dependency}}": max_expression("dependency_up", "dependency")},
              "short", "stat", 4),
        Panel("Builds", "Processes by build", {"{{process}} {{version}} {{commit}}":
              f"count by (process, version, commit) (sparsewell_build_info{{{_NAMESPACE_MATCHER}}})"}, "short", "stat", 4),
    ),
    "Search": (
        Panel("Searches", "By mode, those of a batch one by one", {"{{mode}}": rate_expression("searches_total", "mode")},
              "reqps"),
        Panel(
            "Time of a search", "Within the API, its wait for OpenSearch included",
            {f"p{int(q * 100)}": quantile_expression(q, "search_stage_duration_seconds", "", 'stage="total"')
             for q in (0.5, 0.9, 0.99)}, "s",
        ),
        Panel(
            "Mean time by stage", "What a search spends its time on",
            {"{{stage}}": rate_expression("search_stage_duration_seconds_sum", "stage", 'stage!~"total|engine"') + " / "
             + rate_expression("search_stage_duration_seconds_count", "stage", 'stage!~"total|engine"')},
            "s", stacked=True,
        ),
        Panel("Requests by route", "Of all kinds", {"{{method}} {{route}}":
              rate_expression("http_requests_total", "method, route")}, "reqps"),
        Panel("Errors by code", "See docs/api/errors.md", {"{{code}}": rate_expression("problems_total", "code")}, "reqps"),
        Panel(
            "Fallbacks and partial answers", "Answers without what was asked for; lists refused as incomplete",
            {"{{kind}} {{reason}}": rate_expression("search_fallbacks_total", "kind, reason"),
             "partial": f"sum(rate(sparsewell_search_incomplete_total{{{_NAMESPACE_MATCHER}}}[$__rate_interval]))"}, "reqps",
        ),
        Panel("Requests in progress", "By process", {"{{instance}}":
              f"sum by (instance) (sparsewell_http_requests_in_progress{{{_NAMESPACE_MATCHER}}})"}),
        Panel("p99 by route", "From the head of a request to the end of its answer", {"{{route}}":
              quantile_expression(0.99, "http_request_duration_seconds", "route")}, "s"),
        Panel("OpenSearch, p99 by API", "As all processes see it", {"{{operation}}":
              quantile_expression(0.99, "opensearch_request_duration_seconds", "operation")}, "s"),
    ),
    "Ingestion": (
        Panel("Documents in", "Through both doors", {"{{outcome}}": rate_expression("ingested_documents_total", "outcome")},
              "reqps"),
        Panel("Documents of encode messages", "What became of them", {"{{outcome}}":
              rate_expression("encode_documents_total", "outcome")}, "reqps"),
        Panel("Pending documents", "Wait for their vectors", {"{{index}} {{generation}}":
              max_expression("pending_documents", "index, generation")}),
        Panel("Queues", "Messages that wait", {"{{queue}}": max_expression("queue_messages", "queue")}),
        Panel("Age of the next message", "Grows: add workers", {"{{queue}}":
              max_expression("queue_oldest_message_age_seconds", "queue")}, "s"),
        Panel("Workers", "Seen lately, by encoder", {"{{encoder}}": max_expression("workers", "encoder")}),
        Panel("Wait in the queue, p95", "As workers see it", {"{{task}}":
              quantile_expression(0.95, "queue_wait_seconds", "task")}, "s"),
        Panel("Run of the encoder, p50 and p99", "A run holds 16 windows at most", {f"{{{{encoder}}}} p{int(q * 100)}":
              quantile_expression(q, "encode_run_duration_seconds", "encoder") for q in (0.5, 0.99)}, "s"),
        Panel("Pieces a run, median", "Full runs are what an encoder is quick with", {"{{encoder}}":
              quantile_expression(0.5, "encode_run_pieces", "encoder")}),
        Panel("Messages", "By task and ending", {"{{task}} {{outcome}}": rate_expression("tasks_total", "task, outcome")},
              "reqps"),
        Panel("Time of a message, p99", "Budget 30 s, limit 300 s", {"{{task}}":
              quantile_expression(0.99, "task_duration_seconds", "task")}, "s"),
        Panel("Bulk items", "superseded: a newer version was there; repeated: sent again", {"{{outcome}}":
              rate_expression("bulk_items_total", "outcome")}, "reqps"),
        Panel("Dead letters", "By reason", {"{{code}}": rate_expression("dead_letters_total", "code")}, "reqps"),
        Panel("Chapters, p95", "Of one talk", {"{{engine}}": quantile_expression(0.95, "chapters_duration_seconds", "engine")},
              "s"),
        Panel("Without chapters, without dense vectors", "Encoded all the same", {
            "{{engine}} {{code}}": rate_expression("chapters_failures_total", "engine, code"),
            "dense {{code}}": rate_expression("dense_failures_total", "code")}, "reqps"),
        Panel("Not enqueued", "Redis took no message; the sweeper does it later", {"times":
              f"sum(rate(sparsewell_not_enqueued_total{{{_NAMESPACE_MATCHER}}}[$__rate_interval]))"}, "reqps"),
    ),
    "Sweeper, reindexing, processes": (
        Panel("Sweeper", "What its duties did", {"{{duty}} {{outcome}}":
              rate_expression("sweeper_documents_total", "duty, outcome")}, "reqps"),
        Panel("Since a duty was done", "A sweep interval, or it is stuck", {"{{duty}}":
              f"time() - {max_expression('sweeper_last_success_timestamp_seconds', 'duty')}"}, "s"),
        Panel("Passes with trouble", "By reason", {"{{duty}} {{outcome}}":
              rate_expression("sweeper_passes_total", "duty, outcome", 'outcome!="done"')}, "reqps"),
        Panel("Reindexing: carried", "Documents", {"{{index}} {{step}}":
              max_expression("reindex_carried_documents", "index, step")}),
        Panel("Reindexing: idle", "Since it was last heard of", {"{{index}} {{step}}":
              max_expression("reindex_idle_seconds", "index, step")}, "s"),
        Panel("Errors of OpenSearch", "Away, late, overloaded", {"{{operation}} {{code}}":
              rate_expression("opensearch_errors_total", "operation, code")}, "reqps"),
        Panel("Memory", "Resident, of the parent in workers", {"{{instance}}":
              f"process_resident_memory_bytes{{{_NAMESPACE_MATCHER}}} and on (instance) sparsewell_build_info"}, "bytes", width=12),
        Panel("Processor", "Seconds a second", {"{{instance}}":
              f"rate(process_cpu_seconds_total{{{_NAMESPACE_MATCHER}}}[$__rate_interval]) and on (instance) sparsewell_build_info"},
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
            "refId": chr(ord("A") + at),
            "expr": expression,
            "legendFormat": legend,
            "datasource": _DATA_SOURCE,
            "exemplar": True,
        }
        for at, (legend, expression) in enumerate(panel.expressions.items())
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _DATA_SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": 4 if panel.kind == "stat" else 7},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": targets,
    }


def build_dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
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
                    # outside of Kubernetes there is no such label: ".*" takes that as well
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                    "refresh": 2,
                },
            ]
        },
        "panels": panels,
    }


def main() -> None:
    """The command."""
    print(json.dumps(build_dashboard(), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
