"""Token-aware dense vectors (LexSemBridge, arXiv 2508.17858): a study without training.

    python -m benchmarks token_aware_vectors COLLECTIONS --json benchmarks/results/token-aware-vectors.json

The dense vector v of a window or query is modulated by a lexical part L: the sum of its pieces' sparse weights times
their rows of the dense query table, at length 1.

* `sum`: v + beta L;
* `gate`: v times (1 + beta G), element by element, where G is L with a mean square of 1, as in the paper.

`statistical` takes the weights of the text's own pieces (BM25's saturated counts in a window, the query table's weights
in a query; the paper's are 1). `learned` adds the encoder's expansions, which project the pooled vector into the
vocabulary as the paper's learned form does; a query without a model has none. The paper's contextual form, a projection
of each position, is missing, and so is its contrastive training: the rows and the projection are fitted in closed form.
The paper modulates queries. Here documents are modulated as well, because that costs a search nothing.

Variant and beta are chosen without the collection that they are reported on. `weight alone` is the control: another
weight of the rerank, chosen in the same way, without a lexical part (docs/decisions/0275).
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.sparse as sp

from benchmarks.collections import judged_arguments
from benchmarks.measuring import run_benchmark
from benchmarks.studies.reranked_lists import (
    RERANK_WEIGHTS,
    StudyCollection,
    compare_chosen,
    mean_by_collection,
    open_study_collections,
)
from models.projection.encoder import ProjectedEncoder
from models.projection.refit import RefitStart
from services.documents.document import joined_text
from services.encoders.manifest import resolve_model_directory
from services.encoders.vectors import DenseArray, StoredDenseVectors, normalise_vector

BETAS: Final = (0.1, 0.2, 0.4, 0.8, 1.6)
WEIGHTS: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
FORMS: Final = ("sum", "gate")
LEXICAL: Final = ("statistical", "learned")
SIDES: Final = ("documents", "queries", "both")
PLAIN: Final = "plain"
CONTROL: Final = "weight alone"


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to modulate; `beta` is its strength."""

    side: str
    form: str
    lexical: str
    beta: float

    @property
    def name(self) -> str:
        """Return the name without the strength."""
        return f"{self.side}, {self.form}, {self.lexical}"


def token_aware_vectors(argv: list[str] | None = None) -> None:
    """Measure NDCG@10 of the rerank by dense vectors that a lexical part modulates."""
    parser = judged_arguments("token_aware_vectors", token_aware_vectors.__doc__)
    run_benchmark("token_aware_vectors", parser, measure, argv)


def list_variants() -> Iterator[Variant]:
    """Yield every variant. The form of the documents' lexical part does not matter for queries alone."""
    for side in SIDES:
        for form in FORMS:
            for lexical in LEXICAL[:1] if side == "queries" else LEXICAL:
                for beta in BETAS:
                    yield Variant(side, form, lexical, beta)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every variant, and of the one that is chosen without each collection."""
    start = RefitStart.open(resolve_model_directory(arguments.encoder))
    encoder, rows = start.encoder, start.rows
    by_query: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for opened in open_study_collections(arguments, encoder):
        by_query[opened.name] = measure_variants(opened, encoder, rows)
        version = opened.opensearch
        print(opened.name, {way: mean_by_collection(by_query, way)[PLAIN] for way in RERANK_WEIGHTS}, flush=True)
    families: dict[str, list[str]] = {CONTROL: [f"{CONTROL} {weight}" for weight in WEIGHTS]}
    for variant in list_variants():
        families.setdefault(variant.name, []).append(f"{variant.name} {variant.beta}")
    modulated = [name for family, names in families.items() if family != CONTROL for name in names]
    return {
        "opensearch": version,
        "encoder": {"name": encoder.name, "fingerprint": encoder.fingerprint},
        "weights": dict(RERANK_WEIGHTS),
        "ndcg@10": {way: mean_by_collection(by_query, way) for way in RERANK_WEIGHTS},
        "chosen_without_each_collection": {
            way: {
                "any variant": compare_chosen(by_query, way, [PLAIN, *modulated], PLAIN),
                **{family: compare_chosen(by_query, way, [PLAIN, *names], PLAIN) for family, names in families.items()},
            }
            for way in RERANK_WEIGHTS
        },
    }


def measure_variants(
    opened: StudyCollection, encoder: ProjectedEncoder, rows: DenseArray
) -> dict[str, dict[str, dict[str, float]]]:
    """Return NDCG@10 by the side that makes the query's vector, variant and query."""
    lexical = {name: lexical_windows(opened, encoder, rows, name == "learned") for name in LEXICAL}
    of_queries = lexical_queries(opened, rows)
    result: dict[str, dict[str, dict[str, float]]] = {
        way: {"hybrid": opened.ndcg(opened.hybrid), PLAIN: opened.ndcg(opened.reranked(opened.stored, way))}
        for way in RERANK_WEIGHTS
    }
    for way, figures in result.items():
        for weight in WEIGHTS:
            figures[f"{CONTROL} {weight}"] = opened.ndcg(opened.reranked(opened.stored, way, weight=weight))
    changed: dict[tuple[str, str, float], StoredDenseVectors] = {}
    for variant in list_variants():
        stored = opened.stored
        if variant.side != "queries":
            key = (variant.form, variant.lexical, variant.beta)
            if key not in changed:
                changed[key] = opened.encoded.store(
                    modulate(opened.encoded.dense, lexical[variant.lexical], variant.form, variant.beta)
                )
            stored = changed[key]

        def change(query: str, vector: DenseArray, variant: Variant = variant) -> DenseArray:
            if variant.side == "documents":
                return vector
            changed: DenseArray = modulate(vector[None, :], of_queries[query][None, :], variant.form, variant.beta)[0]
            return changed

        for way, figures in result.items():
            figures[f"{variant.name} {variant.beta}"] = opened.ndcg(opened.reranked(stored, way, change))
    return result


def modulate(vectors: DenseArray, lexical: DenseArray, form: str, beta: float) -> DenseArray:
    """Return vectors [n, width] modulated by lexical parts [n, width], at length 1."""
    strength = np.float32(beta)
    if form == "gate":
        changed = vectors * (1 + strength * lexical * np.float32(vectors.shape[1] ** 0.5))
    else:
        changed = vectors + strength * lexical
    return np.asarray(changed / np.maximum(np.linalg.norm(changed, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def lexical_windows(
    opened: StudyCollection, encoder: ProjectedEncoder, rows: DenseArray, expansions: bool
) -> DenseArray:
    """Return the lexical part [windows, width] of each window, at length 1, with or without expansions."""
    ids, weights, ends = [], [], [0]
    for document in opened.collection.documents():
        if document.id not in opened.encoded.windows:
            continue
        cut = encoder.windows(joined_text(document.title, document.text))
        for text, window in zip(cut, opened.encoded.windows[document.id], strict=True):
            own = window.vector
            kept = np.isin(own.ids, text.piece_ids) | expansions
            ids.append(own.ids[kept])
            weights.append(own.weights[kept])
            ends.append(ends[-1] + int(kept.sum()))
    matrix = sp.csr_matrix((np.concatenate(weights), np.concatenate(ids), ends), shape=(len(ends) - 1, len(rows)))
    sums = np.asarray(matrix @ rows, dtype=np.float32)
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def lexical_queries(opened: StudyCollection, rows: DenseArray) -> Mapping[str, DenseArray]:
    """Return the lexical part [width] of each query, at length 1: its weights in the query table times the rows."""
    parts = {}
    for query, text in opened.collection.judged.items():
        total = np.zeros(rows.shape[1], np.float32)
        for piece, weight in opened.pieces.encode(text, 1000).by_id().items():
            total += np.float32(weight) * rows[piece]
        parts[query] = normalise_vector(total)
    return parts
