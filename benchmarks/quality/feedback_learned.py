"""Feedback that retrieves by a moved dense vector, learned maps and learned weights, against the service's feedback.

    python -m benchmarks feedback_learned DATA PAIRS --json benchmarks/results/feedback-learned.json

All rows are hybrid lists of collections in memory (`benchmarks.quality.memory_collection`); rows of `reranked` are
scored again with stored dense vectors at the default weight. Nothing is fitted on the collection it is reported on.

- Rocchio: the service's `feedback`; `chosen` has the settings that are best on the other collections.
- Projection: the query's dense vector moves towards the mean of the best windows, is projected into the vocabulary as
  the encoder projects a passage, and its heaviest pieces are added to the query, which retrieves again. With share 0
  the query's own vector is projected: no first round is needed.
- Learned maps (ANCE-PRF's idea, Yu et al. 2021, at our size): ridge regression in closed form from the query's vector
  and those of the best three windows to a target. Targets are the mean of relevant windows, and the dense encoder's own
  vector of the query. They are fitted on the other collections, and on pairs of texts without judgements.
- Careful (LoL's idea, Zhu et al. 2022): settings are chosen by a loss that adds what queries lose against no feedback.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.collections import judged_arguments
from benchmarks.measuring import run_benchmark
from benchmarks.quality.feedback import SPARSE_JUDGEMENTS
from benchmarks.quality.learned_maps import MAP_DOCUMENTS, TARGETS, FeedbackMap, MapExamples, MapForm, fit_map
from benchmarks.quality.memory_collection import PAIR_SETS, MemoryCollection, write_pair_collection
from cli.relevance.metrics import Ranking, Rankings, measure_rankings
from models.export.collection import ndcg
from models.projection.encoder import ProjectedEncoder
from models.projection.moments import PassageMoments
from models.registry import load_projected_encoder
from models.significance import compare_rankings
from services.encoders.dense_query_table import DenseQueryTable
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.encoders.vectors import DenseArray, SparseVector, apply_dense_feedback
from services.errors import ConfigurationError, InvalidInput
from services.query.expansion import (
    FEEDBACK_DOCUMENTS,
    FEEDBACK_ORIGIN,
    QueryBlend,
    RocchioParameters,
    apply_rocchio,
    scale_to_weight,
)

_MAX_PIECES: Final = 1000
# As the encoder projects passages (docs/decisions/0242).
_EXPANSIONS, _LEAST_WEIGHT = 96, 1.5
# LoL: how much a loss against no feedback counts beside the quality itself.
CAREFUL: Final = 2.0
MEASURES: Final = ("ndcg@10", "recall@100")
Vectors = Mapping[str, DenseArray]
QueryFigures = NDArray[np.float64]
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class RocchioSetting:
    """The service's feedback: how many documents, how many pieces of them, and their weight beside the query."""

    documents: int = FEEDBACK_DOCUMENTS
    pieces: int = RocchioParameters().pieces
    beta: float = RocchioParameters().beta


@dataclass(frozen=True, slots=True)
class ProjectionSetting:
    """Feedback by projection: the share of the documents in the moved vector, and its pieces and their weight.

    `table`: pieces are chosen and weighted by the product of projection and query weight, else by projection alone.
    """

    share: float
    pieces: int
    beta: float
    table: bool


ROCCHIO_GRID: Final = [
    RocchioSetting(*setting) for setting in product((1, 3, 5, 10), (10, 20, 40), (0.1, 0.3, 0.5, 0.8, 1.2))
]
PROJECTION_GRID: Final = [
    ProjectionSetting(*setting)
    for setting in product((0.0, 0.3, 0.5, 0.7, 1.0), (20, 40), (0.2, 0.5, 0.8), (True, False))
]


class Projection:
    """The encoder's projection of a dense vector into the vocabulary."""

    def __init__(self, directory: Path) -> None:
        """Raises ConfigurationError (`bad_dense_table`, `bad_moments`)."""
        table = QueryTable.load(directory)
        dense = DenseQueryTable.load(directory, table.manifest)
        if dense is None:
            raise ConfigurationError("bad_dense_table", f"The encoder {table.manifest.name} has no dense query table.")
        moments = PassageMoments.load(directory, table.manifest)
        rows = dense.rows()
        weights = np.array([table.weight(piece) for piece in range(len(rows))])
        self._pieces = np.flatnonzero(weights >= _LEAST_WEIGHT)
        self._rows = (rows / moments.spread(rows)[:, None])[self._pieces]
        self._mean = moments.mean

    def project(self, vector: DenseArray) -> SparseVector:
        """Return the largest positive products, as the encoder weighs a passage."""
        products = self._rows @ (vector - self._mean)
        best = np.sort(np.argpartition(-products, _EXPANSIONS)[:_EXPANSIONS])
        best = best[products[best] > 0]
        return SparseVector.of(self._pieces[best].tolist(), products[best])


@dataclass(frozen=True)
class Study:
    """A collection with the ways to search it again."""

    collection: MemoryCollection
    projection: Projection

    @classmethod
    def open(cls, label: str, arguments: argparse.Namespace, encoder: ProjectedEncoder, directory: Path) -> Self:
        """Read and encode a collection."""
        opened = MemoryCollection.open(label, arguments.data, encoder, directory, arguments.cache)
        return cls(opened, Projection(directory))

    @cached_property
    def _liked(self) -> dict[str, list[SparseVector]]:
        """Return the sparse vectors of the best windows of each query's first documents."""
        own, count = self.collection, max(setting.documents for setting in ROCCHIO_GRID)
        return {
            query: [own.best_window(name, vector.by_id()) for name, _ in own.hybrid_lists[query][:count]]
            for query, vector in own.sparse_queries.items()
        }

    def rocchio(self, setting: RocchioSetting) -> dict[str, Ranking]:
        """Return the second round of the service's feedback, by the best windows' sparse vectors."""
        own = self.collection
        rocchio = RocchioParameters(beta=setting.beta, pieces=setting.pieces)
        moved = {}
        for query, vector in own.sparse_queries.items():
            liked = self._liked[query][: setting.documents]
            blend = apply_rocchio(QueryBlend.of(vector), rocchio, own.table.weight, _MAX_PIECES, liked=liked)
            moved[query] = blend.vector.by_id()
        return own.hybrid(moved)

    def moved(self, share: float, documents: int = MAP_DOCUMENTS) -> dict[str, DenseArray]:
        """Return the dense vectors moved towards the mean of the best windows."""
        own = self.collection
        return {
            query: apply_dense_feedback(vector, own.best_windows(query, documents), share) if share else vector
            for query, vector in own.vectors.items()
        }

    def mapped(self, learned: FeedbackMap) -> dict[str, DenseArray]:
        """Return the dense vectors that a learned map makes of them and of the best windows."""
        own = self.collection
        return {
            query: learned.apply(vector, own.best_windows(query, MAP_DOCUMENTS))
            for query, vector in own.vectors.items()
        }

    def project(self, vectors: Vectors) -> dict[str, SparseVector]:
        """Return the projections of the dense vectors of queries."""
        return {query: self.projection.project(vector) for query, vector in vectors.items()}

    def expanded(self, projections: Mapping[str, SparseVector], setting: ProjectionSetting) -> dict[str, Ranking]:
        """Return the lists of the queries with the heaviest pieces of these projections added."""
        own, moved = self.collection, {}
        for query, vector in own.sparse_queries.items():
            blend = QueryBlend.of(vector)
            projected = projections[query]
            weights = {
                piece: weight * (own.table.weight(piece) if setting.table else 1.0)
                for piece, weight in zip(projected.ids.tolist(), projected.weights.tolist(), strict=True)
            }
            added = scale_to_weight(FEEDBACK_ORIGIN, weights, setting.pieces, setting.beta * blend.weight)
            moved[query] = blend.plus([added], _MAX_PIECES).vector.by_id()
        return own.hybrid(moved)

    def ndcg(self, lists: Rankings) -> QueryFigures:
        """Return NDCG@10 of each query."""
        grades = self.collection.judgements
        return np.array([ndcg([name for name, _ in lists[query][:10]], dict(grades[query])) for query in grades])


def feedback_learned(argv: list[str] | None = None) -> None:
    """Compare feedback that retrieves by projection, learned maps and learned weights with the service's feedback."""
    with tempfile.TemporaryDirectory(prefix="sparsewell-") as folder:
        parser = judged_arguments("feedback_learned", feedback_learned.__doc__)
        parser.add_argument("pairs", type=Path, help="directory of pairs of texts")
        parser.add_argument("--per-set", type=int, default=1000, help="pairs of each set that maps are fitted on")
        parser.set_defaults(cache=Path(folder))
        run_benchmark("feedback_learned", parser, measure, argv)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every way, by collection and over groups of collections."""
    if len(arguments.collections.split(",")) < 2:
        raise InvalidInput("too_few_collections", "Settings are chosen on other collections: name at least two.")
    directory = resolve_model_directory(arguments.encoder)
    encoder = load_projected_encoder(str(directory), threads=arguments.threads)
    studies = {label: Study.open(label, arguments, encoder, directory) for label in arguments.collections.split(",")}
    written = write_pair_collection(
        arguments.pairs, PAIR_SETS, arguments.per_set, arguments.cache / f"pairs-{arguments.per_set}"
    )
    pairs = MemoryCollection.of("pairs", written, encoder, directory, arguments.cache)
    grids = {name: _measure_grids(study) for name, study in studies.items()}
    examples = {name: MapExamples.of(study.collection, encoder, arguments.cache) for name, study in studies.items()}
    maps = fit_maps(examples, MapExamples.of(pairs, encoder, arguments.cache).split())
    rows = {name: _measure_ways(name, study, grids, maps[name]) for name, study in studies.items()}
    return {
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "pairs": {"sets": list(PAIR_SETS), "queries": len(pairs.queries)},
        "chosen": {name: _describe_choices(name, grids) for name in studies},
        "ridge": {name: {way: learned.ridge for way, learned in own.items()} for name, own in maps.items()},
        "means": {
            kind: {
                way: {measure: _mean([rows[n][kind][way]["figures"][measure] for n in rows]) for measure in MEASURES}
                for way in next(iter(rows.values()))[kind]
            }
            for kind in ("hybrid", "reranked")
        },
        "groups": _compare_groups(rows),
        "by_collection": {
            name: {kind: {way: row["against none"] for way, row in own[kind].items()} for kind in own}
            for name, own in rows.items()
        },
    }


def fit_maps(
    examples: Mapping[str, MapExamples], pairs: Mapping[str, MapExamples]
) -> dict[str, dict[str, FeedbackMap]]:
    """Return, for each collection, the maps by source, target and form. Collections weigh alike, as sets of pairs."""
    by_pairs = {
        f"pairs, {target}, {form.value}": fit_map(list(pairs.values()), target, form)
        for target, form in product(TARGETS, MapForm)
    }
    print("maps fitted on pairs", flush=True)
    fitted = {}
    for name in examples:
        others = [own for other, own in examples.items() if other != name]
        # There are too few judged queries for three windows one after the other.
        by_others = {f"others, {target}, mean": fit_map(others, target, MapForm.mean) for target in TARGETS}
        fitted[name] = by_others | by_pairs
        print(f"{name}: maps fitted", flush=True)
    return fitted


@dataclass(frozen=True, slots=True)
class _Grids:
    """NDCG@10 of each query without feedback and with each setting."""

    none: QueryFigures
    rocchio: Mapping[RocchioSetting, QueryFigures]
    projection: Mapping[ProjectionSetting, QueryFigures]


def _measure_grids(study: Study) -> _Grids:
    none = study.ndcg(study.collection.hybrid_lists)
    rocchio = {setting: study.ndcg(study.rocchio(setting)) for setting in ROCCHIO_GRID}
    moved = {share: study.project(study.moved(share)) for share in {setting.share for setting in PROJECTION_GRID}}
    projection = {setting: study.ndcg(study.expanded(moved[setting.share], setting)) for setting in PROJECTION_GRID}
    print(f"{study.collection.name}: settings measured", flush=True)
    return _Grids(none, rocchio, projection)


def _loss(none: Any, after: Any, careful: float) -> float:
    """Return the mean loss of queries, and `careful` times what they lose against no feedback."""
    return float((1 - after).mean() + careful * np.maximum(none - after, 0).mean())


def _choose(name: str, grids: Mapping[str, _Grids], settings: Callable[[_Grids], Mapping[S, Any]], careful: float) -> S:
    """Return the setting with the least mean loss over the other collections."""
    others = [grid for other, grid in grids.items() if other != name]
    return min(
        settings(others[0]), key=lambda setting: _mean([_loss(g.none, settings(g)[setting], careful) for g in others])
    )


def _own_vector(grid: _Grids) -> Mapping[ProjectionSetting, Any]:
    return {setting: values for setting, values in grid.projection.items() if setting.share == 0}


def _with_documents(grid: _Grids) -> Mapping[ProjectionSetting, Any]:
    return {setting: values for setting, values in grid.projection.items() if setting.share > 0}


def _describe_choices(name: str, grids: Mapping[str, _Grids]) -> dict[str, str]:
    return {
        "rocchio": repr(_choose(name, grids, lambda grid: grid.rocchio, 0)),
        "rocchio, careful": repr(_choose(name, grids, lambda grid: grid.rocchio, CAREFUL)),
        "projection": repr(_choose(name, grids, _with_documents, 0)),
        "projection, careful": repr(_choose(name, grids, _with_documents, CAREFUL)),
        "projection of the query": repr(_choose(name, grids, _own_vector, 0)),
    }


def _measure_ways(
    name: str, study: Study, grids: Mapping[str, _Grids], maps: Mapping[str, FeedbackMap]
) -> dict[str, dict[str, Any]]:
    """Return the figures of each way: hybrid lists against hybrid, reranked lists against reranked."""
    own = study.collection
    projection, careful, alone = (
        _choose(name, grids, settings, weight)
        for settings, weight in ((_with_documents, 0), (_with_documents, CAREFUL), (_own_vector, 0))
    )
    mapped = {way: study.mapped(learned) for way, learned in maps.items()}
    hybrid: dict[str, Rankings] = {
        "none": own.hybrid_lists,
        "rocchio": study.rocchio(RocchioSetting()),
        "rocchio, chosen": study.rocchio(_choose(name, grids, lambda grid: grid.rocchio, 0)),
        "rocchio, careful": study.rocchio(_choose(name, grids, lambda grid: grid.rocchio, CAREFUL)),
        "projection of the query": study.expanded(study.project(own.vectors), alone),
        "projection, chosen": study.expanded(study.project(study.moved(projection.share)), projection),
        "projection, careful": study.expanded(study.project(study.moved(careful.share)), careful),
    }
    for way, vectors in mapped.items():
        hybrid[f"projection by map: {way}"] = study.expanded(study.project(vectors), projection)
    second = {way: own.rerank(lists, own.vectors) for way, lists in hybrid.items() if ":" not in way}
    reranked: dict[str, Rankings] = {
        **second,
        "rescored, vector feedback": own.rerank(own.hybrid_lists, study.moved(0.3, 1)),
        "rescored, mean of three": own.rerank(own.hybrid_lists, study.moved(projection.share)),
        **{f"rescored by map: {way}": own.rerank(own.hybrid_lists, vectors) for way, vectors in mapped.items()},
    }
    print(f"{name}: ways measured", flush=True)
    return {kind: _compare_with_none(own, lists) for kind, lists in (("hybrid", hybrid), ("reranked", reranked))}


def _compare_with_none(own: MemoryCollection, lists: Mapping[str, Rankings]) -> dict[str, Any]:
    """Return the figures of each way, of each query and on average, and the comparisons with `none`."""
    by_query = {way: measure_rankings(own.judgements, rankings).by_query for way, rankings in lists.items()}
    figures = {
        way: {measure: {f"{own.name} {query}": row[measure] for query, row in rows.items()} for measure in MEASURES}
        for way, rows in by_query.items()
    }
    return {
        way: {
            "by_query": values,
            "figures": {measure: _mean(list(values[measure].values())) for measure in MEASURES},
            "against none": {m: compare_rankings(figures["none"][m], values[m]).figures() for m in MEASURES},
        }
        for way, values in figures.items()
    }


def _compare_groups(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Compare each way with `none` over all queries of the collections with deep judgements, and of the others."""
    sparse = [name for name in rows if name.partition("/")[0] in SPARSE_JUDGEMENTS]
    groups = {"deep": [name for name in rows if name not in sparse], "one document": sparse}

    def pooled(names: Sequence[str], kind: str, way: str, measure: str) -> dict[str, float]:
        return {query: value for n in names for query, value in rows[n][kind][way]["by_query"][measure].items()}

    return {
        group: {
            kind: {
                way: {
                    m: compare_rankings(pooled(names, kind, "none", m), pooled(names, kind, way, m)).figures()
                    for m in MEASURES
                }
                for way in rows[names[0]][kind]
                if way != "none"
            }
            for kind in ("hybrid", "reranked")
        }
        for group, names in groups.items()
        if names
    }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 5)
