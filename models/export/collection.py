"""Test collection in BEIR's layout, and NDCG@10 of document vectors on it, in memory.

`python -m models.export.collection ENCODER COLLECTION... --out FILE` measures NDCG@10 and cost by size of window
(docs/decisions/0020) and writes a JSON report. Documents shorter than a window have the same vector at every size, so
vectors are cached by their pieces; the cost is measured on the first documents, without that cache.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.encoder import TextWindow
from models.export.throughput import cpu_name
from models.judged_collection import open_collection
from models.onnx_encoder import OnnxSparseEncoder
from services.encoders.manifest import read_manifest, resolve_model_directory
from services.encoders.query_table import QueryTable
from services.encoders.vectors import SparseVector, merge_max
from services.errors import InvalidInput

log = logging.getLogger("models.export")
VectorCache = dict[tuple[int, ...], SparseVector]


@dataclass(frozen=True)
class Collection:
    """Documents, queries and grades. A document is title, newline, text (or the text alone), in file order.

    `own`: ids of queries that are documents themselves.
    """

    name: str
    ids: list[str]
    documents: list[str]
    queries: dict[str, str]
    grades: dict[str, dict[str, int]]
    own: frozenset[str] = frozenset()


def read_collection(directory: Path) -> Collection:
    """Read a judged collection into memory. Judged queries without a text are left out.

    Raises ConfigurationError (`collection_not_found`), InvalidInput (`malformed_collection`) with file and line.
    """
    judged = open_collection(directory)
    documents = list(judged.documents())
    if not documents or not judged.judged:
        raise InvalidInput(
            "malformed_collection",
            f"{directory} has {len(documents)} documents and {len(judged.judged)} judged queries.",
        )
    return Collection(
        judged.name,
        [document.id for document in documents],
        [f"{document.title}\n{document.text}" if document.title else document.text for document in documents],
        judged.judged,
        judged.judgements,
        frozenset(document.id for document in documents if judged.is_own_document(document)),
    )


def ndcg(ranking: Sequence[str], grades: dict[str, int], depth: int = 10) -> float:
    """Return NDCG with linear gains, the form of trec_eval."""
    gain = sum(grades.get(document, 0) / math.log2(place + 2) for place, document in enumerate(ranking[:depth]))
    best = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:depth]
    ideal = sum(grade / math.log2(place + 2) for place, grade in enumerate(best))
    return gain / ideal if ideal else 0.0


def mean_ndcg(collection: Collection, vectors: Sequence[SparseVector], table: QueryTable) -> float:
    """Return the mean NDCG@10 over the judged queries: scores are dot products, ties go to the earlier document."""
    ids = np.concatenate([vector.ids for vector in vectors])
    weights = np.concatenate([vector.weights for vector in vectors])
    owners = np.repeat(np.arange(len(vectors)), [len(vector) for vector in vectors])
    order = np.argsort(ids, kind="stable")
    ids, weights, owners = ids[order], weights[order], owners[order]
    total = 0.0
    for query, text in collection.queries.items():
        scores = np.zeros(len(vectors))
        query_vector = table.encode(text, max_pieces=8192)
        for piece, weight in zip(query_vector.ids, query_vector.weights, strict=True):
            start, end = np.searchsorted(ids, [piece, piece + 1])
            scores[owners[start:end]] += weight * weights[start:end]
        best = np.argsort(-scores, kind="stable")[:11]
        ranking = [collection.ids[index] for index in best if scores[index] > 0]
        if query in collection.own:  # It must not find itself, as in BEIR.
            ranking = [document for document in ranking if document != query]
        total += ndcg(ranking, collection.grades[query])
    return total / len(collection.queries)


def window_quality(
    encoder: OnnxSparseEncoder, table: QueryTable, collection: Collection, size: tuple[int, int], known: VectorCache
) -> dict[str, Any]:
    """Return NDCG@10 of whole documents in windows of `size` (pieces, overlap), with the maximum over windows."""
    cuts = [encoder.windows(text, *size) for text in collection.documents]
    new: dict[tuple[int, ...], TextWindow] = {
        window.piece_ids: window for windows in cuts for window in windows if window.piece_ids not in known
    }
    known.update(zip(new, encoder.encode(list(new.values())), strict=True))
    vectors = [merge_max(known[window.piece_ids] for window in windows) for windows in cuts]
    return {
        "ndcg_at_10": round(mean_ndcg(collection, vectors, table), 4),
        "windows_a_document": round(sum(map(len, cuts)) / len(cuts), 3),
        "weights_a_document": round(sum(map(len, vectors)) / len(vectors), 1),
    }


def window_cost_ms(encoder: OnnxSparseEncoder, texts: list[str], size: tuple[int, int]) -> float:
    """Return milliseconds of processor time a document, with tokenisation; other processes hardly disturb it."""
    began = time.process_time()
    encoder.encode([window for text in texts for window in encoder.windows(text, *size)])
    return round((time.process_time() - began) * 1000 / len(texts), 1)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m models.export.collection", description=__doc__)
    parser.add_argument("encoder")
    parser.add_argument("collections", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", default="126:16,190:24,254:32,382:48,510:64", help="pieces:overlap, comma separated")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sample", type=int, default=64, help="documents of which the cost is measured")
    arguments = parser.parse_args()
    directory = resolve_model_directory(arguments.encoder)
    encoder = OnnxSparseEncoder(directory, read_manifest(directory), threads=arguments.threads)
    table = QueryTable.load(directory)
    sizes = [
        (int(pieces), int(overlap)) for pieces, _, overlap in (s.partition(":") for s in arguments.sizes.split(","))
    ]
    results: dict[str, Any] = {}
    for collection in map(read_collection, arguments.collections):
        known: VectorCache = {}
        results[collection.name] = {}
        for size in sizes:
            label = f"{size[0]} pieces, overlap {size[1]}"
            figures = window_quality(encoder, table, collection, size, known)
            figures["cpu_ms_a_document"] = window_cost_ms(encoder, collection.documents[: arguments.sample], size)
            results[collection.name][label] = figures
            log.info("%s, %s: %s", collection.name, label, figures)
    report = {
        "encoder": encoder.manifest.name,
        "fingerprint": encoder.fingerprint,
        "machine": {"cpu": cpu_name(), "threads": arguments.threads},
        "collections": results,
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
