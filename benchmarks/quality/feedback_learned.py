"""Feedback of the second kind: dense second rounds that retrieve, learned encoders of feedback, and learned weights.

    python -m benchmarks feedback_learned DATA --pairs PAIRS --json benchmarks/results/feedback-learned.json

A study of four ideas on the best documents of a hybrid search, each measured against no feedback:

- `rocchio`: the feedback of the service, on sparse vectors.
- `dense`: the query's dense vector plus a share of the mean of the best documents' vectors. It rescores the candidates
  (`rerank.feedback` of the service), and retrieves: the encoder's projection turns the moved vector into pieces, which
  are added to the sparse query.
- `ridge` and `ridge by pairs`: ANCE-PRF (arXiv 2108.13454) at our size. A linear map from the query's vector and the
  mean of the best three to a correction of the vector, by ridge regression: towards the judged documents of the other
  collections, or towards the passages of pairs, without judgements.
- weights learned as LoL does (arXiv 2204.11545): the parameters of each way are chosen on the other collections, by
  mean NDCG@10 and by a loss in which each query that feedback makes worse counts twice.

Sparse lists are exact, lexical lists come from a real node. Nothing is chosen on the collection that it is reported on.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.collections import CANDIDATE_COUNT, judged_arguments, search_lexical_lists
from benchmarks.measuring import run_benchmark
from benchmarks.quality.moved_queries import MAX_PIECES, MovedQuery, StudyCollection, StudyEncoder, unit, unmoved
from benchmarks.service import open_node, read_opensearch_version
from cli.relevance.metrics import measure_rankings
from models.judged_collection import open_collection
from models.significance import compare_rankings
from models.training.pairs import read_pairs
from services.encoders.manifest import resolve_model_directory
from services.encoders.vectors import DenseArray
from services.opensearch.client import SyncSearchClient
from services.query.expansion import QueryBlend, RocchioParameters, apply_rocchio, scale_to_weight

COLLECTIONS: Final = "adi,cisi,cosqa,cranfield,medline"
PAIR_FILES: Final = ("wikipedia_lead", "opensearch_docs", "talk_headings", "arxiv_daily")
PAIRS_OF_FILE: Final = 1500
RIDGE_DOCUMENTS: Final = 3
# Parameters of each way: documents, share of their mean, pieces, weight of the new pieces.
DOCUMENTS, SHARES, PIECES, WEIGHTS = (1, 3, 5, 10), (0.25, 0.5, 1.0), (20, 50), (0.25, 0.5)
RIDGES: Final = (1.0, 10.0, 100.0)
NOTHING: Final = "without"
Setting = tuple[float, ...]
ByQuery = dict[str, float]


def feedback_learned(argv: list[str] | None = None) -> None:
    """Measure dense second rounds, learned encoders of feedback and learned weights, against no feedback."""
    with tempfile.TemporaryDirectory(prefix="sparsewell-") as folder:
        parser = judged_arguments("feedback_learned", feedback_learned.__doc__)
        parser.add_argument("--pairs", type=Path, required=True, help="directory of the pair files")
        parser.set_defaults(cache=Path(folder), collections=COLLECTIONS)
        run_benchmark("feedback_learned", parser, measure, argv)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of each way, with parameters chosen on the other collections."""
    encoder = StudyEncoder.open(resolve_model_directory(arguments.encoder))
    collections: dict[str, StudyCollection] = {}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        version = read_opensearch_version(settings)
        for name in arguments.collections.split(","):
            collection = open_collection(arguments.data / name)
            lexical = search_lexical_lists(search, settings, collection, CANDIDATE_COUNT)
            collections[name] = StudyCollection.of(collection, encoder, arguments.cache, lexical)
    by_pairs = pair_examples(arguments.pairs, encoder, arguments.cache)
    ways: dict[str, Callable[[StudyCollection], dict[Setting, dict[str, MovedQuery]]]] = {
        NOTHING: lambda own: {(): unmoved(own)},
        "rocchio": rocchio_queries,
        "dense, rescores": lambda own: dense_queries(own, encoder, retrieve=False),
        "dense, retrieves": lambda own: dense_queries(own, encoder, retrieve=True),
        "ridge, rescores": lambda own: ridge_queries(own, encoder, judged_examples(own, collections), retrieve=False),
        "ridge, retrieves": lambda own: ridge_queries(own, encoder, judged_examples(own, collections), retrieve=True),
        "ridge by pairs, rescores": lambda own: ridge_queries(own, encoder, by_pairs, retrieve=False),
        "ridge by pairs, retrieves": lambda own: ridge_queries(own, encoder, by_pairs, retrieve=True),
    }
    figures: dict[str, dict[str, dict[Setting, dict[str, ByQuery]]]] = {}
    for way, move in ways.items():
        figures[way] = {name: measure_settings(own, move(own)) for name, own in collections.items()}
        best = max(mean_gain(figures[way], figures[NOTHING], setting) for setting in settings_of(figures[way]))
        print(f"{way}: {len(settings_of(figures[way]))} settings, best mean gain {best:+.4f}", flush=True)
    return {
        "opensearch": version,
        "encoder": {"name": encoder.start.manifest.name, "fingerprint": encoder.start.manifest.fingerprint},
        "settings": "documents, share of their mean, pieces, weight of new pieces; ridge: its strength first",
        "ways": {way: summarise(found, figures[NOTHING]) for way, found in figures.items()},
    }


def rocchio_queries(own: StudyCollection) -> dict[Setting, dict[str, MovedQuery]]:
    """Return the queries after the service's feedback on sparse vectors, by documents, weight and pieces."""
    moved: dict[Setting, dict[str, MovedQuery]] = {}
    for documents, pieces, weight in product(DOCUMENTS, PIECES, WEIGHTS):
        rocchio = RocchioParameters(beta=weight, pieces=pieces)
        queries = {}
        for name, query in own.queries.items():
            liked = [own.vectors[document] for document in own.first[name][:documents] if document in own.vectors]
            blend = apply_rocchio(QueryBlend.of(query), rocchio, own.table.weight, MAX_PIECES, liked=liked)
            queries[name] = MovedQuery(blend.vector.by_id(), own.dense[name])
        moved[documents, pieces, weight] = queries
    return moved


def dense_queries(
    own: StudyCollection, encoder: StudyEncoder, *, retrieve: bool
) -> dict[Setting, dict[str, MovedQuery]]:
    """Return the queries whose dense vector is moved towards the best documents."""
    moved: dict[Setting, dict[str, MovedQuery]] = {}
    for documents, share in product(DOCUMENTS, SHARES):
        vectors: dict[str, DenseArray | None] = {}
        for name, vector in own.dense.items():
            mean = own.mean_of_best(name, documents)
            vectors[name] = vector if vector is None or mean is None else unit(vector + np.float32(share) * mean)
        moved |= with_new_pieces(own, encoder, vectors, (documents, share), retrieve=retrieve)
    return moved


def with_new_pieces(
    own: StudyCollection,
    encoder: StudyEncoder,
    vectors: Mapping[str, DenseArray | None],
    setting: Setting,
    *,
    retrieve: bool,
) -> dict[Setting, dict[str, MovedQuery]]:
    """Return the queries with moved vectors; with `retrieve`, their projections are added to the sparse queries."""
    if not retrieve:
        queries = {name: MovedQuery(query.by_id(), vectors[name]) for name, query in own.queries.items()}
        return {setting: queries}
    moved: dict[Setting, dict[str, MovedQuery]] = {}
    projected = {
        name: {} if vector is None else encoder.project(vector, own.table, max(PIECES))
        for name, vector in vectors.items()
    }
    for pieces, weight in product(PIECES, WEIGHTS):
        queries = {}
        for name, query in own.queries.items():
            blend = QueryBlend.of(query)
            share = scale_to_weight("projection", projected[name], pieces, weight * blend.weight)
            queries[name] = MovedQuery(blend.plus([share], MAX_PIECES).vector.by_id(), vectors[name])
        moved[*setting, pieces, weight] = queries
    return moved


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Vectors to learn from: queries, the means of their best documents, and the targets, each [examples, width]."""

    queries: DenseArray
    means: DenseArray
    targets: DenseArray

    def fit(self, ridge: float) -> DenseArray:
        """Return the map [2 width, width] from query and mean to the correction of the query's vector."""
        inputs = np.concatenate([self.queries, self.means], axis=1).astype(np.float64)
        correction = self.targets.astype(np.float64) - self.queries
        gram = inputs.T @ inputs + ridge * np.eye(inputs.shape[1])
        return np.linalg.solve(gram, inputs.T @ correction).astype(np.float32)


def judged_examples(own: StudyCollection, collections: Mapping[str, StudyCollection]) -> Examples:
    """Return the examples of all other collections: the target is the mean of a query's relevant documents."""
    found: list[tuple[DenseArray, DenseArray, DenseArray]] = []
    for other in collections.values():
        if other.name == own.name:
            continue
        for name, grades in other.collection.known_judgements().items():
            vector, mean = other.dense[name], other.mean_of_best(name, RIDGE_DOCUMENTS)
            relevant = [other.rows[document] for document, grade in grades.items() if grade > 0 and document in
                        other.rows]  # fmt: skip
            if vector is not None and mean is not None and relevant:
                found.append((vector, mean, unit(np.mean(relevant, axis=0))))
    return Examples(*(np.stack(rows).astype(np.float32) for rows in zip(*found, strict=True)))


def pair_examples(directory: Path, encoder: StudyEncoder, cache: Path) -> Examples:
    """Return the examples of pairs: the best three of all their passages, and the pair's own passage as target."""
    pairs = [
        pair
        for name in PAIR_FILES
        for pair in islice(read_pairs(directory / f"{name}.jsonl.gz"), PAIRS_OF_FILE)
        if encoder.dense.encode(pair.query) is not None
    ]
    queries = np.stack([vector for pair in pairs if (vector := encoder.dense.encode(pair.query)) is not None])
    kept = cache / f"pairs-{encoder.start.manifest.fingerprint}-{len(pairs)}.npy"
    if not kept.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(kept, encoder.start.encoder.encode_passages([pair.passage for pair in pairs]))
    passages = np.load(kept)
    means = np.empty_like(queries)
    for start in range(0, len(queries), 512):
        scores = queries[start : start + 512] @ passages.T
        best = np.argpartition(-scores, RIDGE_DOCUMENTS, axis=1)[:, :RIDGE_DOCUMENTS]
        means[start : start + 512] = passages[best].mean(axis=1)
    return Examples(queries, means, passages)


def ridge_queries(
    own: StudyCollection, encoder: StudyEncoder, examples: Examples, *, retrieve: bool
) -> dict[Setting, dict[str, MovedQuery]]:
    """Return the queries whose dense vector a learned map has corrected."""
    moved: dict[Setting, dict[str, MovedQuery]] = {}
    for ridge in RIDGES:
        learned = examples.fit(ridge)
        vectors: dict[str, DenseArray | None] = {}
        for name, vector in own.dense.items():
            mean = own.mean_of_best(name, RIDGE_DOCUMENTS)
            vectors[name] = vector
            if vector is not None and mean is not None:
                vectors[name] = unit((vector + np.concatenate([vector, mean]) @ learned).astype(np.float32))
        moved |= with_new_pieces(own, encoder, vectors, (ridge,), retrieve=retrieve)
    return moved


def measure_settings(
    own: StudyCollection, settings: Mapping[Setting, Mapping[str, MovedQuery]]
) -> dict[Setting, dict[str, ByQuery]]:
    """Return NDCG@10 and Recall@100 by query, of hybrid and of reranked lists."""
    judgements = own.collection.known_judgements()
    found: dict[Setting, dict[str, ByQuery]] = {}
    for setting, moved in settings.items():
        found[setting] = {}
        fused = own.hybrid(moved)
        for stage, lists in (("hybrid", fused), ("reranked", own.reranked(fused, moved))):
            quality = measure_rankings(judgements, lists)
            for measure_name in ("ndcg@10", "recall@100"):
                found[setting][f"{stage} {measure_name}"] = {
                    query: figures[measure_name] for query, figures in quality.by_query.items()
                }
    return found


def settings_of(by_collection: Mapping[str, Mapping[Setting, Any]]) -> list[Setting]:
    """Return the settings of a way."""
    return list(next(iter(by_collection.values())))


def mean_gain(found: Any, before: Any, setting: Setting, without: str = "", losses: float = 1.0) -> float:
    """Return the mean gain of reranked NDCG@10 over collections; `losses` multiplies what queries lose."""
    means = []
    for name, settings in found.items():
        if name != without:
            old, new = before[name][()]["reranked ndcg@10"], settings[setting]["reranked ndcg@10"]
            gains = np.array([new[query] - old[query] for query in old])
            means.append(float(np.where(gains < 0, losses * gains, gains).mean()))
    return float(np.mean(means))


def summarise(found: Any, before: Any) -> dict[str, Any]:
    """Return the figures with parameters chosen on the other collections, by mean and with losses counted twice."""
    result: dict[str, Any] = {}
    for objective, losses in (("by the mean", 1.0), ("losses count twice", 2.0)):
        chosen: dict[str, Setting] = {
            name: max(settings_of(found), key=lambda s: mean_gain(found, before, s, name, losses)) for name in found
        }
        row: dict[str, Any] = {"chosen": {name: list(setting) for name, setting in chosen.items()}}
        for figure in next(iter(before.values()))[()]:
            by_collection = {name: found[name][chosen[name]][figure] for name in found}
            row[figure] = {
                "mean": round(mean_of_means(by_collection.values()), 5),
                "by_collection": {name: round(mean_of(values), 5) for name, values in by_collection.items()},
                "against_nothing": compare_collections(
                    {name: before[name][()][figure] for name in found}, by_collection
                ),
            }  # fmt: skip
        result[objective] = row
    return result


def mean_of(values: Mapping[str, float]) -> float:
    """Return the mean over queries."""
    return sum(values.values()) / len(values)


def mean_of_means(collections: Iterable[Mapping[str, float]]) -> float:
    """Return the mean over collections of their means."""
    means = [mean_of(values) for values in collections]
    return sum(means) / len(means)


def compare_collections(before: Mapping[str, ByQuery], after: Mapping[str, ByQuery]) -> dict[str, Any]:
    """Return the difference over all queries of all collections, its interval and p."""
    sides = [
        {f"{name}/{query}": value for name, values in side.items() for query, value in values.items()}
        for side in (before, after)
    ]
    comparison = compare_rankings(*sides).as_json()
    return {name: comparison[name] for name in ("difference", "low", "high", "p", "beyond_chance")}
