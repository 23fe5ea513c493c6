"""The coefficients of `sparsewell plan` (cli.planning.costs), fitted by least squares on measured indexes. Pure.

What `sparsewell plan` counts with, fitted on and held against results.

    python -m benchmarks.plan_coefficients [FILE]

Without FILE those that are shipped are written anew. Indexes and rates that were not fitted on are predicted, and the
prediction over what was measured is kept beside the coefficients.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from cli.plan import SHIPPED_FILE
from cli.planning import MILLION, MODES, Coefficients, Cost, LinearCost, SearchCost, queueing_factor


@dataclass(frozen=True, slots=True)
class ObservedIndex:
    """One measured index: documents of `pieces` pieces and `words` words on average; bytes of it in all, and of what
    searches read; by mode p50, p99, mean of the clock, and processor of `node` and `api`.
    """

    documents: int
    pieces: float
    shards: int
    words: float
    stored: int
    searched: int
    modes: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class ObservedLoad:
    """One index asked at a rate: p99, the share of all cores that was busy, and p99 of the same asked one at a time."""

    busy: float
    p99: float
    alone: float

    @property
    def at_random(self) -> float:
        return self.p99 / self.alone / queueing_factor(self.busy)


def fit_coefficients(points: Sequence[ObservedIndex], load: Sequence[ObservedLoad]) -> Coefficients:
    """The coefficients. Raises ValueError for points that do not tell them apart."""
    pieces = [float(one.pieces) for one in points]
    if len(set(pieces)) < 2 or len({one.documents for one in points}) < 2 or len({one.shards for one in points}) < 2:
        raise ValueError("a fit needs two lengths of document, two sizes and two numbers of shards")
    if not load:
        raise ValueError("a fit needs an index that was asked at a rate")
    return Coefficients(
        round(float(np.mean([one.pieces / one.words for one in points])), 3),
        _fit_line(pieces, [one.stored / one.documents for one in points]),
        _fit_line(pieces, [one.searched / one.documents for one in points]),
        {mode: _fit_search_cost(points, mode) for mode in MODES},
        round(float(np.mean([one.at_random for one in load])), 3),
    )


def _fit_search_cost(points: Sequence[ObservedIndex], mode: str) -> SearchCost:
    rows = [one.modes[mode] for one in points]
    ones, shards = np.ones(len(points)), np.array([one.shards for one in points])
    documents = np.array([one.documents / MILLION for one in points])
    return SearchCost(
        Cost(*_fit_non_negative([ones, shards, documents], [row["node"] for row in rows])),
        round(float(np.mean([row["api"] for row in rows])), 4),
        Cost(*_fit_non_negative([ones, shards, documents / shards], [row["p50"] for row in rows])),
        round(float(np.median([row["p99"] / row["p50"] for row in rows])), 3),
    )


def _fit_line(xs: Sequence[float], ys: Sequence[float]) -> LinearCost:
    return LinearCost(*_fit_non_negative([np.ones(len(xs)), xs], ys))


def _fit_non_negative(columns: Sequence[Sequence[float] | np.ndarray], wanted: Sequence[float]) -> list[float]:
    """Coefficients, none below 0, by relative error: a small index counts as much as a large one.

    Raises ValueError for a reading of nothing: what cost nothing was not measured.
    """
    readings = np.array(wanted)
    if not (np.isfinite(readings).all() and (readings > 0).all()):
        raise ValueError(f"a fit needs readings above 0, these are {readings.tolist()}")
    found, _ = nnls(np.column_stack(columns) / readings[:, None], np.ones(len(readings)))
    return [round(float(one), 4) for one in found]


def prediction_ratios(of: Coefficients, one: ObservedIndex) -> dict[str, float]:
    """What the coefficients predict of an index, over what was measured of it."""
    found = {
        "stored": of.stored.at(one.pieces) * one.documents / one.stored,
        "searched": of.searched.at(one.pieces) * one.documents / one.searched,
    }
    for mode, cost in of.search.items():
        row = one.modes[mode]
        found[f"{mode} node"] = cost.node.of(one.documents, one.shards) / row["node"]
        found[f"{mode} api"] = cost.api / row["api"]
        clock = cost.p50(one.documents, one.shards, one.shards)
        found[f"{mode} p50"] = clock / row["p50"]
        found[f"{mode} p99"] = cost.tail * clock / row["p99"]
    return {name: round(value, 2) for name, value in found.items()}


def load_prediction_ratio(of: Coefficients, one: ObservedLoad) -> float:
    """The same of p99 at a rate."""
    return round(of.at_random * one.alone * queueing_factor(one.busy) / one.p99, 2)


_RESULTS = Path(__file__).parent / "results"
# Searches a second that are fitted on; the others are predicted.
_FITTED_RATES = (10, 80)


def make_coefficients() -> dict[str, Any]:
    """Fitted on capacity.json; what encoding and journalling cost is by the benchmarks that measure these."""
    capacity, workers = _read_result("capacity"), _read_result("worker_pipeline")["figures"]
    ingest, talk = _read_result("ingest_throughput")["figures"], _read_result("talk-encoding")["figures"]
    pieces = workers["pieces"] / workers["documents"]
    machine, version = capacity["machine"], capacity["versions"]["opensearch"]
    points = {point["index"]: point for point in capacity["figures"]["points"]}
    load = _parse_load(capacity["figures"]["load"], points)
    found = fit_coefficients(
        [_parse_observed(point) for point in points.values() if point["role"] == "fit"],
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
            "api_mib": _read_result("journal_100k")["figures"]["rss_mib"]["max"],
        },
        "predicted_over_measured": {
            name: prediction_ratios(found, _parse_observed(point))
            for name, point in points.items()
            if point["role"] == "check"
        },
        "predicted_over_measured_p99_at_a_rate": {
            str(rate): load_prediction_ratio(found, one) for rate, one in load.items() if rate not in _FITTED_RATES
        },
    }


def _parse_observed(point: dict[str, Any]) -> ObservedIndex:
    return ObservedIndex(**{one.name: point[one.name] for one in fields(ObservedIndex)})


def _parse_load(load: dict[str, Any], points: dict[str, dict[str, Any]]) -> dict[int, ObservedLoad]:
    alone = points[load["index"]]["modes"][load["mode"]]["p99"]
    return {row["a_second"]: ObservedLoad(row["busy"], row["p99"], alone) for row in load["rates"]}


def _read_result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Writes the file."""
    path, found = Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED_FILE, make_coefficients()
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for name, row in found["predicted_over_measured"].items():
        print(f"{name}: predicted over measured {row}")
    print(f"p99 at a rate: predicted over measured {found['predicted_over_measured_p99_at_a_rate']}")
    print(path)


if __name__ == "__main__":
    main()
