"""Fit of the coefficients of `sparsewell plan` (cli.planning) by least squares on measured indexes.

    python -m benchmarks capacity_fit [FILE]

Without FILE, it writes the coefficients that are shipped. Indexes and rates outside the fit are predicted, and the
ratios of prediction to measurement are kept beside the coefficients. The fit is the non-negative least squares of
Lawson and Hanson, on relative errors.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from cli.plan import SHIPPED_FILE
from cli.planning import MILLION, MODES, Coefficients, Cost, LinearCost, SearchCost, queueing_factor

_RESULTS = Path(__file__).parent / "results"
# Searches per second that are fitted on; the other rates are predicted.
_FITTED_RATES = (10, 80)


@dataclass(frozen=True, slots=True)
class ObservedIndex:
    """Measured index with documents of `pieces` pieces and `words` words on average.

    `stored` bytes in all, `searched` bytes that searches read; by mode p50, p99 and mean of the clock, and the
    processor time of `node` and `api`.
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
    """Measured index at a rate: p99, busy share of all cores, and p99 of the same queries one at a time."""

    busy: float
    p99: float
    alone: float

    @property
    def at_random(self) -> float:
        """Return the factor of random arrivals beyond the queueing formula."""
        return self.p99 / self.alone / queueing_factor(self.busy)


def capacity_fit(argv: list[str] | None = None) -> None:
    """Fit the coefficients of `sparsewell plan` and write them to a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks capacity_fit", description=capacity_fit.__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=SHIPPED_FILE, help="default: the shipped coefficients")
    path, results = parser.parse_args(argv).file, make_coefficients()
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for name, row in results["predicted_over_measured"].items():
        print(f"{name}: predicted over measured {row}")
    print(f"p99 at a rate: predicted over measured {results['predicted_over_measured_p99_at_a_rate']}")
    print(path)


def make_coefficients() -> dict[str, Any]:
    """Fit on capacity.json; costs of encoding and journalling come from the results of their benchmarks."""
    capacity, workers = _read_result("capacity"), _read_result("worker_pipeline")["figures"]
    ingest, talk = _read_result("ingest_throughput")["figures"], _read_result("talk-encoding")["figures"]
    pieces = workers["pieces"] / workers["documents"]
    machine, version = capacity["machine"], capacity["versions"]["opensearch"]
    points = {point["index"]: point for point in capacity["figures"]["points"]}
    load = _parse_load(capacity["figures"]["load"], points)
    coefficients = fit_coefficients(
        [_parse_observed(point) for point in points.values() if point["role"] == "fit"],
        [observed for rate, observed in load.items() if rate in _FITTED_RATES],
    )
    return {
        "measured_on": f"{machine['cores']} cores of {machine['processor']}, OpenSearch {version}",
        "coefficients": asdict(coefficients),
        "working": {
            "encode_ms_a_piece": round(workers["median"]["pipeline"]["processor_ms_a_document"] / pieces, 4),
            "index_ms_a_piece": round(workers["node_processor_ms_a_document"] / pieces, 5),
            # One API process that does nothing else takes one core at most.
            "journal_ms_a_document": round(1000 / ingest["median"]["documents_a_second"], 3),
            "worker_mib": talk["10 hours"]["peak_mib"],
            "api_mib": _read_result("journal_100k")["figures"]["rss_mib"]["max"],
        },
        "predicted_over_measured": {
            name: prediction_ratios(coefficients, _parse_observed(point))
            for name, point in points.items()
            if point["role"] == "check"
        },
        "predicted_over_measured_p99_at_a_rate": {
            str(rate): load_prediction_ratio(coefficients, observed)
            for rate, observed in load.items()
            if rate not in _FITTED_RATES
        },
    }


def _parse_observed(point: dict[str, Any]) -> ObservedIndex:
    return ObservedIndex(**{field.name: point[field.name] for field in fields(ObservedIndex)})


def _parse_load(load: dict[str, Any], points: dict[str, dict[str, Any]]) -> dict[int, ObservedLoad]:
    alone = points[load["index"]]["modes"][load["mode"]]["p99"]
    return {row["a_second"]: ObservedLoad(row["busy"], row["p99"], alone) for row in load["rates"]}


def _read_result(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((_RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def fit_coefficients(points: Sequence[ObservedIndex], load: Sequence[ObservedLoad]) -> Coefficients:
    """Fit the coefficients. Raises ValueError for points that cannot separate them."""
    pieces = [float(point.pieces) for point in points]
    if (
        len(set(pieces)) < 2
        or len({point.documents for point in points}) < 2
        or len({point.shards for point in points}) < 2
    ):
        raise ValueError("a fit needs two lengths of documents, two sizes and two numbers of shards")
    if not load:
        raise ValueError("a fit needs an index under load")
    return Coefficients(
        round(float(np.mean([point.pieces / point.words for point in points])), 3),
        _fit_line(pieces, [point.stored / point.documents for point in points]),
        _fit_line(pieces, [point.searched / point.documents for point in points]),
        {mode: _fit_search_cost(points, mode) for mode in MODES},
        round(float(np.mean([observed.at_random for observed in load])), 3),
    )


def _fit_search_cost(points: Sequence[ObservedIndex], mode: str) -> SearchCost:
    rows = [point.modes[mode] for point in points]
    ones, shards = np.ones(len(points)), np.array([point.shards for point in points])
    documents = np.array([point.documents / MILLION for point in points])
    return SearchCost(
        Cost(*_fit_non_negative([ones, shards, documents], [row["node"] for row in rows])),
        round(float(np.mean([row["api"] for row in rows])), 4),
        Cost(*_fit_non_negative([ones, shards, documents / shards], [row["p50"] for row in rows])),
        round(float(np.median([row["p99"] / row["p50"] for row in rows])), 3),
    )


def _fit_line(xs: Sequence[float], ys: Sequence[float]) -> LinearCost:
    return LinearCost(*_fit_non_negative([np.ones(len(xs)), xs], ys))


def _fit_non_negative(columns: Sequence[Sequence[float] | np.ndarray], targets: Sequence[float]) -> list[float]:
    """Fit coefficients of at least 0 by relative error, so that a small index counts as much as a large one.

    Raises ValueError for a reading of 0, which was not measured.
    """
    readings = np.array(targets)
    if not (np.isfinite(readings).all() and (readings > 0).all()):
        raise ValueError(f"a fit needs readings above 0, got {readings.tolist()}")
    coefficients, _ = nnls(np.column_stack(columns) / readings[:, None], np.ones(len(readings)))
    return [round(float(value), 4) for value in coefficients]


def prediction_ratios(coefficients: Coefficients, index: ObservedIndex) -> dict[str, float]:
    """Return predictions for an index over its measurements."""
    ratios = {
        "stored": coefficients.stored.at(index.pieces) * index.documents / index.stored,
        "searched": coefficients.searched.at(index.pieces) * index.documents / index.searched,
    }
    for mode, cost in coefficients.search.items():
        row = index.modes[mode]
        ratios[f"{mode} node"] = cost.node.of(index.documents, index.shards) / row["node"]
        ratios[f"{mode} api"] = cost.api / row["api"]
        clock = cost.p50(index.documents, index.shards, index.shards)
        ratios[f"{mode} p50"] = clock / row["p50"]
        ratios[f"{mode} p99"] = cost.tail * clock / row["p99"]
    return {name: round(value, 2) for name, value in ratios.items()}


def load_prediction_ratio(coefficients: Coefficients, load: ObservedLoad) -> float:
    """Return the predicted p99 at a rate over the measured one."""
    return round(coefficients.at_random * load.alone * queueing_factor(load.busy) / load.p99, 2)
