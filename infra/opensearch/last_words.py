"""What a node that ended or did not become ready said last, as an error that names the way out."""

from infra import processes
from infra.opensearch.configuration import Layout
from services.errors import BackendUnavailable, ConfigurationError, SparsewellError


def why_it_died(layout: Layout) -> SparsewellError:
    """The error for a node that ended while it started, from what it logged."""
    end = log_end(layout)
    if "failed to obtain node locks" in end:
        return ConfigurationError(
            "data_dir_locked",
            "Another OpenSearch uses this data directory. Stop that node (sparsewell node stop), or choose another "
            f"directory with SPARSEWELL_OPENSEARCH_DATA_DIR. The node said:\n{_relevant(end, 'failed to obtain')}",
        )
    if "Address already in use" in end:
        return ConfigurationError(
            "port_in_use",
            "One of OpenSearch's ports was taken while it started. Start again, or choose others with "
            "SPARSEWELL_OPENSEARCH_PORT and SPARSEWELL_OPENSEARCH_TRANSPORT_PORT. The node said:\n"
            + _relevant(end, "Address already in use"),
        )
    return BackendUnavailable(
        "node_died", f"OpenSearch ended while it started. Its last log lines ({layout.logs}):\n{end}"
    )


def _relevant(text: str, part: str) -> str:
    return next((line for line in text.splitlines() if part in line), "")


def log_end(layout: Layout) -> str:
    """The last lines of its logs."""
    parts = (processes.last_lines(layout.logs / name, 20) for name in ("opensearch.log", "console.log"))
    return "\n".join(part for part in parts if part)
