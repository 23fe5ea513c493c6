"""What `sparsewell plan` counts with, fitted on and held against results.

    python -m benchmarks.plan_coefficients [FILE]

Without FILE those that are shipped are written anew. Indexes and rates that were not fitted on are predicted, and the
prediction over what was measured is kept beside the coefficients.
"""

import json
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from benchmarks.capacity_fit import Observed, UnderLoad, errors, fitted, load_error
from cli.planning.coefficients import SHIPPED

_RESULTS = Path(__file__).parent / "results"
# Searches a second that are fitted on; the others are predicted.
_FITTED_RATES = (10, 80)


def coefficients() -> dict[str, Any]:
    """Fitted on capacity.json; what encoding and journalling cost is by the benchmarks that measure these."""
    capacity, workers = _read("capacity"), _read("worker_pipeline")["figures"]
    ingest, talk = _read("ingest_throughput")["figures"], _read("talk-encoding")["figures"]
    pieces = workers["pieces"] / workers["documents"]
    machine, version = capacity["machine"], capacity["versions"]["opensearch"]
    points = {point["index"]: point for point in capacity["figures"]["points"]}
    load = _load(capacity["figures"]["load"], points)
    found = fitted(
        [_observed(point) for point in points.values() if point["role"] == "fit"],
        [one for rate, one in load.items() if rate in _FITTED_RATES],
    )
    return {
        "measured_on": f"{machine['cores']} cores of {machine['processor']}, OpenSearch {version}",
        "coefficients": asdict(found),
        "working": {
            "encode_ms_a_piece": round(workers["median"]["pipeline"]["processor_ms_a_document"] / pieces, 4),
            "index_ms_a_piece": round(workers["node_processor_ms_a_document"] / pieces, 5),
            # one API process that does nothing else: the whole of a core at most
            "journal_ms_a_document": round(1000 / ingest["median"]["documents_a_second"], 3),
            "worker_mib": talk["10 hours"]["peak_mib"],
            "api_mib": _read("journal_100k")["figures"]["rss_mib"]["max"],
        },
        "predicted_over_measured": {
            name: errors(found, _observed(point)) for name, point in points.items() if point["role"] == "check"
        },
        "predicted_over_measured_p99_at_a_rate": {
            str(rate): load_error(found, one) for rate, one in load.items() if rate not in _FITTED_RATES
        },
    }


def _observed(point: dict[str, Any]) -> Observed:
    return Observed(**{one.name: point[one.name] for one in fields(Observed)})


def _load(load: dict[str, Any], points: dict[str, dict[str, Any]]) -> dict[int, UnderLoad]:
    alone = points[load["index"]]["modes"][load["mode"]]["p99"]
    return {row["a_second"]: UnderLoad(row["busy"], row["p99"], alone) for row in load["rates"]}


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Writes the file."""
    path, found = Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED, coefficients()
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for name, row in found["predicted_over_measured"].items():
        print(f"{name}: predicted over measured {row}")
    print(f"p99 at a rate: predicted over measured {found['predicted_over_measured_p99_at_a_rate']}")
    print(path)


if __name__ == "__main__":
    main()
