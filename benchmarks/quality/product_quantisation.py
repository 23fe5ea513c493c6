"""Product quantisation of stored dense vectors, beside int8 and one bit: bytes against quality of the rerank.

    python -m benchmarks product_quantisation DATA --pairs PAIRS --json benchmarks/results/product-quantisation.json

A study (Jegou and others 2011). A vector is cut into equal parts; each part is replaced by the nearest of 256
centroids, one byte. Centroids are fitted by k-means to passages of pairs, not to the collections. Hybrid lists are
reranked by the dense query table as in a search (docs/decisions/0243); the query's vector is not quantised. One bit
keeps the sign of each number, less its mean over passages. Times are of the scores of 100 documents.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.collections import CANDIDATE_COUNT, judged_arguments, search_lexical_lists
from benchmarks.measuring import run_benchmark
from benchmarks.quality.feedback_learned import (
    COLLECTIONS,
    StudyCollection,
    StudyEncoder,
    compare_collections,
    mean_of,
    mean_of_means,
    pair_examples,
    unmoved,
)
from benchmarks.service import open_node, read_opensearch_version
from cli.relevance.metrics import measure_rankings
from models.judged_collection import open_collection
from services.encoders.manifest import resolve_model_directory
from services.encoders.vectors import DenseArray, StoredDenseVectors, quantise_rows
from services.opensearch.client import SyncSearchClient

PARTS: Final = (24, 48, 96, 192)
CENTROIDS: Final = 256
ROUNDS: Final = 20
REPEATS: Final = 200
Codes = NDArray[np.uint8]


class ProductQuantiser:
    """Centroids of each part, [parts, 256, part width]."""

    def __init__(self, sample: DenseArray, parts: int, seed: int = 0) -> None:
        """Fit the centroids to a sample [vectors, width] by Lloyd's k-means; `parts` divides the width."""
        generator = np.random.default_rng(seed)
        self.parts = parts
        self.centroids = np.stack(
            [
                _fit_centroids(np.ascontiguousarray(block), generator)
                for block in np.split(sample, parts, axis=1)
            ]
        )  # fmt: skip

    def encode(self, vectors: DenseArray) -> Codes:
        """Return the codes [vectors, parts]."""
        blocks = np.split(vectors, self.parts, axis=1)
        return np.stack([_nearest(block, own) for block, own in zip(blocks, self.centroids, strict=True)], axis=1)

    def decode(self, codes: Codes) -> DenseArray:
        """Return the vectors of codes, [vectors, width]."""
        return np.concatenate([own[codes[:, part]] for part, own in enumerate(self.centroids)], axis=1)

    def scores(self, query: DenseArray, codes: Codes) -> DenseArray:
        """Return the products with a query [width], from a table of its products with all centroids."""
        table = np.einsum("pcw,pw->pc", self.centroids, query.reshape(self.parts, -1))
        total: DenseArray = table[np.arange(self.parts), codes].sum(axis=1)
        return total


def _fit_centroids(block: DenseArray, generator: np.random.Generator) -> DenseArray:
    centroids = block[generator.choice(len(block), CENTROIDS, replace=False)].copy()
    for _ in range(ROUNDS):
        nearest = _nearest(block, centroids)
        counts = np.bincount(nearest, minlength=CENTROIDS)
        sums = np.zeros_like(centroids)
        np.add.at(sums, nearest, block)
        # A centroid without vectors stays where it is.
        centroids = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centroids).astype(np.float32)
    return centroids


def _nearest(block: DenseArray, centroids: DenseArray) -> Codes:
    distances = np.square(centroids).sum(axis=1) - 2 * block @ centroids.T
    nearest: Codes = distances.argmin(axis=1).astype(np.uint8)
    return nearest


def product_quantisation(argv: list[str] | None = None) -> None:
    """Measure NDCG@10 of hybrid search reranked by vectors of fewer bytes."""
    with tempfile.TemporaryDirectory(prefix="sparsewell-") as folder:
        parser = judged_arguments("product_quantisation", product_quantisation.__doc__)
        parser.add_argument("--pairs", type=Path, required=True, help="directory of the pair files")
        parser.set_defaults(cache=Path(folder), collections=COLLECTIONS)
        run_benchmark("product_quantisation", parser, measure, argv)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of each form of the stored vectors."""
    encoder = StudyEncoder.open(resolve_model_directory(arguments.encoder))
    sample = pair_examples(arguments.pairs, encoder, arguments.cache).targets.astype(np.float32)
    quantisers = {parts: ProductQuantiser(sample, parts) for parts in PARTS}
    width, mean = sample.shape[1], sample.mean(axis=0)
    forms: dict[str, tuple[int, Callable[[DenseArray], DenseArray]]] = {
        "float32": (4 * width, lambda rows: rows),
        "int8": (width + 4, _as_int8),
        "one bit": (width // 8, lambda rows: (np.sign(rows - mean) / np.sqrt(width)).astype(np.float32)),
        **{
            f"{parts} parts": (parts, lambda rows, own=own: own.decode(own.encode(rows)))  # type: ignore[misc]
            for parts, own in quantisers.items()
        },
    }
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in ("no rerank", *forms)}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        version = read_opensearch_version(settings)
        for name in arguments.collections.split(","):
            collection = open_collection(arguments.data / name)
            lexical = search_lexical_lists(search, settings, collection, CANDIDATE_COUNT)
            own = StudyCollection.of(collection, encoder, arguments.cache, lexical)
            queries = unmoved(own)
            fused = own.hybrid(queries)
            judgements = collection.known_judgements()
            found["no rerank"][name] = _ndcg(measure_rankings(judgements, fused).by_query)
            for form, (_, change) in forms.items():
                rows = StoredDenseVectors(own.stored.ids, own.stored.starts, change(own.stored.rows))
                lists = replace(own, stored=rows).reranked(fused, queries)
                found[form][name] = _ndcg(measure_rankings(judgements, lists).by_query)
            print(name, {form: round(mean_of(values[name]), 4) for form, values in found.items()}, flush=True)
    return {
        "opensearch": version,
        "encoder": {"name": encoder.start.manifest.name, "fingerprint": encoder.start.manifest.fingerprint},
        "fitted_on_passages": len(sample),
        "forms": {
            form: {
                "bytes_a_vector": 0 if form == "no rerank" else forms[form][0],
                "ndcg@10": round(mean_of_means(by_collection.values()), 5),
                "by_collection": {name: round(mean_of(values), 5) for name, values in by_collection.items()},
                "against_float32": compare_collections(found["float32"], by_collection),
            }
            for form, by_collection in found.items()
        },
        "microseconds_of_100_documents": _time_scores(sample, quantisers),
    }


def _as_int8(rows: DenseArray) -> DenseArray:
    stored = quantise_rows(rows)
    result: DenseArray = stored["codes"].astype(np.float32) * stored["scale"][:, None]
    return result


def _time_scores(sample: DenseArray, quantisers: Mapping[int, ProductQuantiser]) -> dict[str, float]:
    query, documents = sample[0], sample[1:101]
    stored = quantise_rows(documents)
    ways: dict[str, Callable[[], object]] = {
        "int8": lambda: (stored["codes"].astype(np.float32) * stored["scale"][:, None]) @ query
    }
    for parts, own in quantisers.items():
        codes = own.encode(documents)
        ways[f"{parts} parts"] = lambda own=own, codes=codes: own.scores(query, codes)  # type: ignore[misc]
    times: dict[str, float] = {}
    for name, score in ways.items():
        durations = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            score()
            durations.append(time.perf_counter() - began)
        times[name] = round(float(np.median(durations)) * 1e6, 1)
    return times


def _ndcg(by_query: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {query: row["ndcg@10"] for query, row in by_query.items()}
