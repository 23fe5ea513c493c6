"""What `sparsewell plan` counts with, put together from results: `python -m benchmarks.plan_coefficients FILE`."""

import json
import sys
from pathlib import Path
from typing import Any

_RESULTS = Path(__file__).parent / "results"


def coefficients() -> dict[str, Any]:
    """Coefficients of capacity.json, and what encoding and journalling cost by the benchmarks that measure these."""
    capacity, workers = _read("capacity"), _read("worker_pipeline")["figures"]
    ingest, talk = _read("ingest_throughput")["figures"], _read("talk-encoding")["figures"]
    pieces = workers["pieces"] / workers["documents"]
    machine, version = capacity["machine"], capacity["figures"]["opensearch"]
    return {
        "measured_on": f"{machine['cores']} cores of {machine['processor']}, OpenSearch {version}",
        "coefficients": capacity["figures"]["coefficients"],
        "working": {
            "encode_ms_a_piece": round(workers["median"]["pipeline"]["processor_ms_a_document"] / pieces, 4),
            "index_ms_a_document": workers["node_processor_ms_a_document"],
            # one API process that does nothing else: the whole of a core at most
            "journal_ms_a_document": round(1000 / ingest["median"]["documents_a_second"], 3),
            "worker_mib": talk["10 hours"]["peak_mib"],
            "api_mib": _read("journal_100k")["figures"]["rss_mib"]["max"],
        },
    }


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Writes the file."""
    path = Path(sys.argv[1])
    path.write_text(json.dumps(coefficients(), indent=2) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
