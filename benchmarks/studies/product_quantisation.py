"""Product quantisation of stored dense vectors, beside float16, int8 and one bit: a study.

    python -m benchmarks product_quantisation COLLECTIONS PAIRS --json benchmarks/results/product-quantisation.json

A vector is cut into 48 or 96 parts. Each part is stored as one byte: the nearest of 256 centroids (k-means, Jegou,
Douze and Schmid 2011). The query stays exact, so the score is the dot product of the query and the centroids. `rotated`
turns the vectors first (Ge et al. 2013, the form without parameters). Everything is fitted to passages of PAIRS, none
of which belongs to a reported collection.

Figures: NDCG@10 of hybrid search reranked by the dense query table and by the encoder itself, bytes of a window, and
microseconds from the stored texts of 100 documents to their scores (docs/decisions/0275).
"""

import argparse
import base64
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.collections import judged_arguments
from benchmarks.measuring import run_benchmark, summarise_durations
from benchmarks.studies.reranked_lists import (
    RERANK_WEIGHTS,
    StudyCollection,
    compare_pooled,
    mean_by_collection,
    open_study_collections,
)
from models.projection.encoder import ProjectedEncoder
from models.registry import load_projected_encoder
from services.encoders.manifest import resolve_model_directory
from services.encoders.vectors import (
    DenseArray,
    StoredDenseVectors,
    pack_dense_vectors,
    quantise_rows,
    window_row_dtype,
)

# Sets whose licences permit shipped weights; none of their passages is in a judged collection.
PAIR_SETS: Final = (
    "arxiv_arxiver", "opensearch_docs", "podcast_qa_changelog", "talk_headings", "wikipedia_body", "wikipedia_lead",
)  # fmt: skip
# 40 vectors a centroid, as faiss asks for at least 39.
PASSAGES_PER_SET: Final = 1_700
CENTROIDS: Final = 256
_ITERATIONS: Final = 25
_ROTATIONS: Final = 15
_SEED: Final = 0
_BLOCK: Final = 512
_TIMED_DOCUMENTS, _TIMED_ROUNDS = 100, 200
ByteArray = NDArray[np.uint8]
Scorer = Callable[[Sequence[str], DenseArray], DenseArray]


@dataclass(frozen=True, slots=True, eq=False)
class ProductQuantiser:
    """Centroids [parts, 256, part width], and a rotation [width, width] of vectors and queries."""

    centroids: DenseArray
    rotation: DenseArray

    @classmethod
    def fit(cls, rows: DenseArray, parts: int, *, rotations: int = 0) -> "ProductQuantiser":
        """Fit to rows [n, width]. With `rotations`, turn and fit alternate that often."""
        rotation = np.eye(rows.shape[1], dtype=np.float32)
        fitted = cls(fit_centroids(rows, parts, _ITERATIONS), rotation)
        for _ in range(rotations):
            reconstructed = fitted.decode_turned(fitted.encode(rows))
            # The rotation that brings the rows nearest to their reconstructions (orthogonal Procrustes).
            left, _, right = np.linalg.svd(rows.T @ reconstructed)
            rotation = np.asarray(left @ right, dtype=np.float32)
            fitted = cls(fit_centroids(rows @ rotation, parts, 4, fitted.centroids), rotation)
        return fitted

    def encode(self, rows: DenseArray) -> ByteArray:
        """Return the codes [n, parts] of rows [n, width]."""
        parts = split_parts(rows @ self.rotation, len(self.centroids))
        return np.stack([nearest(own, part) for own, part in zip(self.centroids, parts, strict=True)], axis=1)

    def decode_turned(self, codes: ByteArray) -> DenseArray:
        """Return the turned reconstructions [n, width] of codes."""
        return np.concatenate([own[codes[:, at]] for at, own in enumerate(self.centroids)], axis=1)

    def decode(self, codes: ByteArray) -> DenseArray:
        """Return the reconstructions [n, width] of codes."""
        return np.asarray(self.decode_turned(codes) @ self.rotation.T, dtype=np.float32)

    def scores(self, codes: ByteArray, query: DenseArray) -> DenseArray:
        """Return the dot products [n] by a table of the query with every centroid, without reconstructions."""
        parts = (query @ self.rotation).reshape(len(self.centroids), -1)
        table = np.einsum("pcw,pw->pc", self.centroids, parts)
        flat = codes.astype(np.intp) + np.arange(len(table)) * CENTROIDS
        return np.asarray(table.ravel()[flat].sum(axis=1), dtype=np.float32)


def split_parts(rows: DenseArray, parts: int) -> Sequence[DenseArray]:
    """Return rows [n, width] as parts of equal width."""
    return np.split(rows, parts, axis=1)


def nearest(centroids: DenseArray, rows: DenseArray) -> ByteArray:
    """Return the number of the nearest centroid of each row."""
    half = (centroids**2).sum(axis=1) / 2
    return np.asarray((rows @ centroids.T - half).argmax(axis=1), dtype=np.uint8)


def fit_centroids(rows: DenseArray, parts: int, iterations: int, start: DenseArray | None = None) -> DenseArray:
    """Return the centroids [parts, 256, part width] of rows by k-means, from random rows or from `start`."""
    generator = np.random.default_rng(_SEED)
    result = []
    for at, own in enumerate(split_parts(rows, parts)):
        centroids = own[generator.permutation(len(own))[:CENTROIDS]] if start is None else start[at]
        for _ in range(iterations):
            codes = nearest(centroids, own)
            members = sp.csr_matrix(
                (np.ones(len(own), np.float32), (codes, np.arange(len(own)))), shape=(CENTROIDS, len(own))
            )
            counts = np.asarray(members.sum(axis=1))
            # A centroid without rows begins again at a random row.
            spare = own[generator.integers(0, len(own), CENTROIDS)]
            centroids = np.where(counts > 0, (members @ own) / np.maximum(counts, 1), spare)
        result.append(centroids)
    return np.asarray(result, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class StoredForm:
    """A way to store a window: its bytes, the rows that its scores come from, its stored text, and its scorer."""

    bytes: int
    restore: Callable[[DenseArray], DenseArray]
    pack: Callable[[DenseArray], str]
    score: Scorer


def make_forms(sample: DenseArray, rotations: int = _ROTATIONS) -> dict[str, StoredForm]:
    """Return all forms, fitted to a sample [n, width]."""
    width = sample.shape[1]
    mean = sample.mean(axis=0)

    def signs(rows: DenseArray) -> DenseArray:
        return np.where(rows > mean, np.float32(1), np.float32(-1))

    def int8(rows: DenseArray) -> DenseArray:
        stored = quantise_rows(rows)
        return np.asarray(stored["codes"].astype(np.float32) * stored["scale"][:, None], dtype=np.float32)

    def score_bits(texts: Sequence[str], query: DenseArray) -> DenseArray:
        bits = np.unpackbits(read_texts(texts, np.uint8).reshape(-1, width // 8), axis=1)
        return np.asarray(bits.astype(np.float32) @ query, dtype=np.float32)

    def score_int8(texts: Sequence[str], query: DenseArray) -> DenseArray:
        stored = read_texts(texts, window_row_dtype(width))
        return np.asarray((stored["codes"].astype(np.float32) * stored["scale"][:, None]) @ query, dtype=np.float32)

    forms = {
        "float16": StoredForm(
            2 * width,
            lambda rows: rows.astype(np.float16).astype(np.float32),
            lambda rows: encode_text(rows.astype(np.float16)),
            lambda texts, query: read_texts(texts, np.float16).reshape(-1, width).astype(np.float32) @ query,
        ),
        "int8": StoredForm(window_row_dtype(width).itemsize, int8, pack_dense_vectors, score_int8),
        "one bit": StoredForm(
            width // 8, signs, lambda rows: encode_text(np.packbits(rows > mean, axis=1)), score_bits
        ),
    }
    for name, parts, turns in (("PQ48", 48, 0), ("PQ48, rotated", 48, rotations), ("PQ96", 96, 0)):
        quantiser = ProductQuantiser.fit(sample, parts, rotations=turns)
        forms[name] = _quantised_form(quantiser, parts)
        print(f"{name}: fitted", flush=True)
    return forms


def _quantised_form(quantiser: ProductQuantiser, parts: int) -> StoredForm:
    return StoredForm(
        parts,
        lambda rows: quantiser.decode(quantiser.encode(rows)),
        lambda rows: encode_text(quantiser.encode(rows)),
        lambda texts, query: quantiser.scores(read_texts(texts, np.uint8).reshape(-1, parts), query),
    )


def encode_text(codes: NDArray[Any]) -> str:
    """Return codes in base64, as OpenSearch keeps them."""
    return base64.b64encode(np.ascontiguousarray(codes).tobytes()).decode("ascii")


def read_texts(texts: Sequence[str], dtype: Any) -> NDArray[Any]:
    """Return the codes of several documents."""
    return np.frombuffer(b"".join(map(base64.b64decode, texts)), dtype=dtype)


def product_quantisation(argv: list[str] | None = None) -> None:
    """Measure NDCG@10, bytes and microseconds of stored dense vectors by their form."""
    parser = judged_arguments("product_quantisation", product_quantisation.__doc__)
    parser.add_argument("pairs", type=Path, help="directory of pairs, for the sample that centroids are fitted to")
    run_benchmark("product_quantisation", parser, measure, argv)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every form."""
    encoder = load_projected_encoder(str(resolve_model_directory(arguments.encoder)), threads=arguments.threads)
    sample = load_sample(arguments.pairs, encoder, arguments.cache)
    forms = make_forms(sample)
    rows: dict[str, Any] = {}
    by_query: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for opened in open_study_collections(arguments, encoder):
        rows[opened.name] = {"windows": len(opened.stored.rows), "queries": len(opened.hybrid)}
        by_query[opened.name] = measure_forms(opened, forms)
        rows[opened.name]["cosine"] = {name: mean_cosine(opened.stored.rows, form) for name, form in forms.items()}
        print(opened.name, {way: _means(by) for way, by in by_query[opened.name].items()}, flush=True)
        version = opened.opensearch
        last = opened
    ways = tuple(RERANK_WEIGHTS)
    return {
        "opensearch": version,
        "encoder": {"name": encoder.name, "fingerprint": encoder.fingerprint},
        "sample": len(sample),
        "weights": dict(RERANK_WEIGHTS),
        "bytes_a_window": {name: form.bytes for name, form in forms.items()},
        "microseconds_of_100_windows": time_forms(forms, last),
        "ndcg@10": {way: mean_by_collection(by_query, way) for way in ways},
        "compared_with_int8": {
            way: {form: compare_pooled(by_query, way, "int8", form) for form in forms if form != "int8"} for way in ways
        },
        "by_collection": {name: row | {way: _means(by_query[name][way]) for way in ways} for name, row in rows.items()},
    }


def measure_forms(opened: StudyCollection, forms: Mapping[str, StoredForm]) -> dict[str, dict[str, dict[str, float]]]:
    """Return NDCG@10 by the side that makes the query's vector, form and query, and that of the list without rerank."""
    hybrid = opened.ndcg(opened.hybrid)
    result: dict[str, dict[str, dict[str, float]]] = {way: {"hybrid": hybrid} for way in RERANK_WEIGHTS}
    for name, form in forms.items():
        stored = StoredDenseVectors(opened.stored.ids, opened.stored.starts, form.restore(opened.stored.rows))
        for way in RERANK_WEIGHTS:
            result[way][name] = opened.ndcg(opened.reranked(stored, way))
    return result


def mean_cosine(rows: DenseArray, form: StoredForm) -> float:
    """Return the mean cosine of rows and what their stored form restores."""
    restored = form.restore(rows)
    products = (rows * restored).sum(axis=1) / np.linalg.norm(restored, axis=1) / np.linalg.norm(rows, axis=1)
    return round(float(products.mean()), 4)


def time_forms(forms: Mapping[str, StoredForm], opened: StudyCollection) -> dict[str, dict[str, float]]:
    """Return microseconds from the stored texts of 100 one-window documents to their scores. The forms take turns."""
    texts = {
        name: [form.pack(row[None, :]) for row in opened.stored.rows[:_TIMED_DOCUMENTS]] for name, form in forms.items()
    }
    query = next(vector for vector in opened.vectors["table"].values() if vector is not None)
    durations: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(_TIMED_ROUNDS + 1):
        for name, form in forms.items():
            started = perf_counter()
            form.score(texts[name], query)
            if turn:
                durations[name].append((perf_counter() - started) * 1e6)
    return {name: summarise_durations(values, 1) for name, values in durations.items()}


def load_sample(pairs: Path, encoder: ProjectedEncoder, cache: Path | None) -> DenseArray:
    """Return the vectors of the first window of distinct passages of each set. A file in `cache` keeps them."""
    path = cache / f"sample-{encoder.fingerprint}-{PASSAGES_PER_SET}.npy" if cache else None
    if path and path.is_file():
        return np.asarray(np.load(path), dtype=np.float32)
    texts = [text for name in PAIR_SETS for text in islice(_passages(pairs / f"{name}.jsonl.gz"), PASSAGES_PER_SET)]
    blocks = []
    for start in range(0, len(texts), _BLOCK):
        blocks.append(encoder.encode_windows([encoder.windows(text)[0] for text in texts[start : start + _BLOCK]]))
        print(f"\rsample: {start:,} of {len(texts):,} passages", end="", flush=True)
    print()
    rows = np.concatenate(blocks)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rows.astype(np.float16))
    return rows


def _passages(path: Path) -> Iterator[str]:
    seen: set[str] = set()
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            text = json.loads(line)["passage"].strip()
            if text and text not in seen:
                seen.add(text)
                yield text


def _means(by_form: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {form: round(sum(values.values()) / len(values), 5) for form, values in by_form.items()}
