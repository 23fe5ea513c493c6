"""Token-aware dense vectors: stored vectors that are moved towards the words of their document.

    python -m benchmarks token_aware_vectors DATA --json benchmarks/results/token-aware-vectors.json

A study of LexSemBridge's idea (arXiv 2508.17858): dense vectors lose single words, so the words modulate them. It
trains a transformation of token weights into a vector that multiplies the dense one, for queries. Here nothing is
trained. A document's words are its own sparse vector of the encoder; their vector is the weighted sum of the pieces'
rows of the dense query table. It is added to the document's dense vector (`added`), or its magnitudes multiply the
dense vector (`multiplied`, the paper's element-wise form). Queries have the vector of the dense query table, which is
made of words already. The strength is chosen on the other collections.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.collections import CANDIDATE_COUNT, judged_arguments, search_lexical_lists
from benchmarks.measuring import run_benchmark
from benchmarks.quality.feedback_learned import (
    COLLECTIONS,
    ByQuery,
    StudyCollection,
    StudyEncoder,
    compare_collections,
    mean_of,
    mean_of_means,
    unit,
    unmoved,
)
from benchmarks.service import open_node, read_opensearch_version
from cli.relevance.metrics import measure_rankings
from models.judged_collection import open_collection
from services.encoders.manifest import resolve_model_directory
from services.encoders.vectors import DenseArray, StoredDenseVectors
from services.opensearch.client import SyncSearchClient

STRENGTHS: Final = (0.1, 0.25, 0.5, 1.0, 2.0)
Change = Callable[[DenseArray, DenseArray, float], DenseArray]


def _add(rows: DenseArray, words: DenseArray, strength: float) -> DenseArray:
    return rows + np.float32(strength) * words


def _multiply(rows: DenseArray, words: DenseArray, strength: float) -> DenseArray:
    # The mean magnitude of a unit vector's members is about 1 / sqrt(width), so factors are about 1 + strength.
    factors = np.abs(words) * np.float32(np.sqrt(words.shape[-1]))
    return rows * (1 + np.float32(strength) * factors)


CHANGES: Final[Mapping[str, Change]] = {"added": _add, "multiplied": _multiply}


def token_aware_vectors(argv: list[str] | None = None) -> None:
    """Measure NDCG@10 of hybrid search reranked by dense vectors that words modulate."""
    with tempfile.TemporaryDirectory(prefix="sparsewell-") as folder:
        parser = judged_arguments("token_aware_vectors", token_aware_vectors.__doc__)
        parser.set_defaults(cache=Path(folder), collections=COLLECTIONS)
        run_benchmark("token_aware_vectors", parser, measure, argv)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of each form, with the strength chosen on the other collections."""
    encoder = StudyEncoder.open(resolve_model_directory(arguments.encoder))
    plain: dict[str, ByQuery] = {}
    changed: dict[str, dict[float, dict[str, ByQuery]]] = {
        name: {strength: {} for strength in STRENGTHS} for name in CHANGES
    }
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        version = read_opensearch_version(settings)
        for name in arguments.collections.split(","):
            collection = open_collection(arguments.data / name)
            lexical = search_lexical_lists(search, settings, collection, CANDIDATE_COUNT)
            own = StudyCollection.of(collection, encoder, arguments.cache, lexical)
            plain[name] = _ndcg(own, own.stored.rows)
            words = word_vectors(own, encoder)
            for form, change in CHANGES.items():
                for strength in STRENGTHS:
                    rows = change(own.stored.rows, words, strength)
                    scaled = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
                    changed[form][strength][name] = _ndcg(own, scaled.astype(np.float32))
            print(name, round(mean_of(plain[name]), 4), flush=True)
    return {
        "opensearch": version,
        "encoder": {"name": encoder.start.manifest.name, "fingerprint": encoder.start.manifest.fingerprint},
        "plain": {"ndcg@10": round(mean_of_means(plain.values()), 5)},
        **{form: summarise(by_strength, plain) for form, by_strength in changed.items()},
    }


def word_vectors(own: StudyCollection, encoder: StudyEncoder) -> DenseArray:
    """Return the unit vector of each stored row's document by its sparse vector, [rows, width]."""
    table = encoder.start.rows
    vectors = np.zeros((len(own.stored.ids), table.shape[1]), dtype=np.float32)
    for at, name in enumerate(own.stored.ids):
        sparse = own.vectors[name]
        idf = np.array([own.table.weight(piece) for piece in sparse.ids.tolist()], np.float32)
        vectors[at] = unit(np.asarray((sparse.weights * idf) @ table[sparse.ids], dtype=np.float32))
    return np.repeat(vectors, np.diff(own.stored.starts), axis=0)


def _ndcg(own: StudyCollection, rows: DenseArray) -> ByQuery:
    queries = unmoved(own)
    changed = replace(own, stored=StoredDenseVectors(own.stored.ids, own.stored.starts, rows))
    lists = changed.reranked(own.hybrid(queries), queries)
    quality = measure_rankings(own.collection.known_judgements(), lists)
    return {query: row["ndcg@10"] for query, row in quality.by_query.items()}


def summarise(by_strength: Mapping[float, Mapping[str, ByQuery]], plain: Mapping[str, ByQuery]) -> dict[str, Any]:
    """Return the figures with the strength that is best on the other collections."""
    chosen: dict[str, float] = {}
    for name in plain:
        means = {
            strength: mean_of_means(values for other, values in found.items() if other != name)
            for strength, found in by_strength.items()
        }
        chosen[name] = max(means, key=means.__getitem__)
    found = {name: by_strength[chosen[name]][name] for name in plain}
    return {
        "chosen": chosen,
        "ndcg@10": round(mean_of_means(found.values()), 5),
        "by_strength": {
            f"{strength}": round(mean_of_means(values.values()), 5) for strength, values in by_strength.items()
        },
        "by_collection": {name: round(mean_of(values), 5) for name, values in found.items()},
        "against_plain": compare_collections(plain, found),
    }
