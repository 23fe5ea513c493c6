"""docs/observability.md lists exactly the metrics of the processes."""

from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from indexer.queue_metrics import METRIC_FAMILIES
from services.telemetry import metrics

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "observability.md").read_text()
ROWS = [line.split("|")[1:4] for line in PAGE.splitlines() if line.startswith("| `sparsewell_")]
LISTED = {
    name.strip(" `"): (kind.strip(), [label.strip(" `") for label in labels.split(",") if label.strip()])
    for name, kind, labels in ROWS
}
BASE_UNITS = (
    "_seconds", "_total", "_info", "_documents", "_messages", "_pieces", "_in_progress", "_workers", "_indexes",
    "_up", "_ready", "_counted",  # 0 or 1
)  # fmt: skip


def counted() -> dict[str, tuple[str, list[str]]]:
    found = {}
    for one in vars(metrics).values():
        if isinstance(one, MetricWrapperBase):
            (family,) = one.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = list(one._labelnames)  # noqa: SLF001 - prometheus_client shows them nowhere else
            found[name] = (family.type, labels)
    return found


def test_the_page_lists_exactly_the_metrics() -> None:
    looked_at = {name: ("gauge", list(labels)) for name, (_, labels) in METRIC_FAMILIES.items()}
    build = {"sparsewell_build_info": ("info", ["version", "commit", "process"])}
    assert counted() | looked_at | build == LISTED


def test_metric_names_end_in_units() -> None:
    assert [name for name in LISTED if not name.endswith(BASE_UNITS)] == []
