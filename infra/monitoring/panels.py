"""The panels of the Grafana dashboard as a table: what each shows, and the expression that it is read from."""

from dataclasses import dataclass
from typing import Final

_HERE: Final = 'namespace=~"$namespace"'


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


def rate(metric: str, by: str, match: str = "") -> str:
    """A counter of ours (its name without `sparsewell_`) a second, summed by labels."""
    matchers = f"{_HERE},{match}" if match else _HERE
    return f"sum by ({by}) (rate(sparsewell_{metric}{{{matchers}}}[$__rate_interval]))"


def quantile(share: float, metric: str, by: str = "", match: str = "") -> str:
    """A quantile of a histogram of ours."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', f'le, {by}' if by else 'le', match)})"


def most(metric: str, by: str) -> str:
    """What the sweeper sees: of several the largest."""
    return f"max by ({by}) (sparsewell_{metric}{{{_HERE}}})"


ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Objectives": (
        Panel(
            "Searches that failed, 1 h", "Objective: 0.1 % at most",
            {"failed": f"sparsewell:search_failures:ratio_rate1h{{{_HERE}}}"}, "percentunit", "stat", 4,
        ),
        Panel(
            "Searches over 100 ms, 1 h", "Objective: 1 % at most",
            {"slow": f"sparsewell:search_slow:ratio_rate1h{{{_HERE}}}"}, "percentunit", "stat", 4,
        ),
        Panel(
            "Oldest pending document", "Objective: under 5 minutes for 99 % of the time",
            {"{{index}}": most("pending_oldest_age_seconds", "index")}, "s", "stat", 4,
        ),
        Panel(
            "Dead documents", "Could not be encoded: /operate says why",
            {"{{index}}": most("dead_documents", "index")}, "short", "stat", 4,
        ),
        Panel("Stores", "1: answered the sweeper", {"{{dependency}}": most("dependency_up", "dependency")},
              "short", "stat", 4),
        Panel("Builds", "Processes by build", {"{{process}} {{version}} {{commit}}":
              f"count by (process, version, commit) (sparsewell_build_info{{{_HERE}}})"}, "short", "stat", 4),
    ),
    "Search": (
        Panel("Searches", "By mode, those of a batch one by one", {"{{mode}}": rate("searches_total", "mode")},
              "reqps"),
        Panel(
            "Time of a search", "Within the API, its wait for OpenSearch included",
            {f"p{int(q * 100)}": quantile(q, "search_stage_duration_seconds", "", 'stage="total"')
             for q in (0.5, 0.9, 0.99)}, "s",
        ),
        Panel(
            "Mean time by stage", "What a search spends its time on",
            {"{{stage}}": rate("search_stage_duration_seconds_sum", "stage", 'stage!~"total|engine"') + " / "
             + rate("search_stage_duration_seconds_count", "stage", 'stage!~"total|engine"')},
            "s", stacked=True,
        ),
        Panel("Requests by route", "Of all kinds", {"{{method}} {{route}}":
              rate("http_requests_total", "method, route")}, "reqps"),
        Panel("Errors by code", "See docs/api/errors.md", {"{{code}}": rate("problems_total", "code")}, "reqps"),
        Panel(
            "Fallbacks and partial answers", "Answers without what was asked for; lists refused as incomplete",
            {"{{kind}} {{reason}}": rate("search_fallbacks_total", "kind, reason"),
             "partial": f"sum(rate(sparsewell_search_incomplete_total{{{_HERE}}}[$__rate_interval]))"}, "reqps",
        ),
        Panel("Requests in progress", "By process", {"{{instance}}":
              f"sum by (instance) (sparsewell_http_requests_in_progress{{{_HERE}}})"}),
        Panel("p99 by route", "From the head of a request to the end of its answer", {"{{route}}":
              quantile(0.99, "http_request_duration_seconds", "route")}, "s"),
        Panel("OpenSearch, p99 by API", "As all processes see it", {"{{operation}}":
              quantile(0.99, "opensearch_request_duration_seconds", "operation")}, "s"),
    ),
    "Ingestion": (
        Panel("Documents in", "Through both doors", {"{{outcome}}": rate("ingested_documents_total", "outcome")},
              "reqps"),
        Panel("Documents of encode messages", "What became of them", {"{{outcome}}":
              rate("encode_documents_total", "outcome")}, "reqps"),
        Panel("Pending documents", "Wait for their vectors", {"{{index}} {{generation}}":
              most("pending_documents", "index, generation")}),
        Panel("Queues", "Messages that wait", {"{{queue}}": most("queue_messages", "queue")}),
        Panel("Age of the next message", "Grows: add workers", {"{{queue}}":
              most("queue_oldest_message_age_seconds", "queue")}, "s"),
        Panel("Workers", "Seen lately, by encoder", {"{{encoder}}": most("workers", "encoder")}),
        Panel("Wait in the queue, p95", "As workers see it", {"{{task}}":
              quantile(0.95, "queue_wait_seconds", "task")}, "s"),
        Panel("Run of the encoder, p50 and p99", "A run holds 16 windows at most", {f"{{{{encoder}}}} p{int(q * 100)}":
              quantile(q, "encode_run_duration_seconds", "encoder") for q in (0.5, 0.99)}, "s"),
        Panel("Pieces a run, median", "Full runs are what an encoder is quick with", {"{{encoder}}":
              quantile(0.5, "encode_run_pieces", "encoder")}),
        Panel("Messages", "By task and ending", {"{{task}} {{outcome}}": rate("tasks_total", "task, outcome")},
              "reqps"),
        Panel("Time of a message, p99", "Budget 30 s, limit 300 s", {"{{task}}":
              quantile(0.99, "task_duration_seconds", "task")}, "s"),
        Panel("Bulk items", "superseded: a newer version was there; repeated: sent again", {"{{outcome}}":
              rate("bulk_items_total", "outcome")}, "reqps"),
        Panel("Dead letters", "By reason", {"{{code}}": rate("dead_letters_total", "code")}, "reqps"),
        Panel("Chapters, p95", "Of one talk", {"{{engine}}": quantile(0.95, "chapters_duration_seconds", "engine")},
              "s"),
        Panel("Without chapters, without dense vectors", "Encoded all the same", {
            "{{engine}} {{code}}": rate("chapters_failures_total", "engine, code"),
            "dense {{code}}": rate("dense_failures_total", "code")}, "reqps"),
        Panel("Not enqueued", "Redis took no message; the sweeper does it later", {"times":
              f"sum(rate(sparsewell_not_enqueued_total{{{_HERE}}}[$__rate_interval]))"}, "reqps"),
    ),
    "Sweeper, reindexing, processes": (
        Panel("Sweeper", "What its duties did", {"{{duty}} {{outcome}}":
              rate("sweeper_documents_total", "duty, outcome")}, "reqps"),
        Panel("Since a duty was done", "A sweep interval, or it is stuck", {"{{duty}}":
              f"time() - {most('sweeper_last_success_timestamp_seconds', 'duty')}"}, "s"),
        Panel("Passes with trouble", "By reason", {"{{duty}} {{outcome}}":
              rate("sweeper_passes_total", "duty, outcome", 'outcome!="done"')}, "reqps"),
        Panel("Reindexing: carried", "Documents", {"{{index}} {{step}}":
              most("reindex_carried_documents", "index, step")}),
        Panel("Reindexing: idle", "Since it was last heard of", {"{{index}} {{step}}":
              most("reindex_idle_seconds", "index, step")}, "s"),
        Panel("Errors of OpenSearch", "Away, late, overloaded", {"{{operation}} {{code}}":
              rate("opensearch_errors_total", "operation, code")}, "reqps"),
        Panel("Memory", "Resident, of the parent in workers", {"{{instance}}":
              f"process_resident_memory_bytes{{{_HERE}}} and on (instance) sparsewell_build_info"}, "bytes", width=12),
        Panel("Processor", "Seconds a second", {"{{instance}}":
              f"rate(process_cpu_seconds_total{{{_HERE}}}[$__rate_interval]) and on (instance) sparsewell_build_info"},
              width=12),
    ),
}  # fmt: skip
