"""Test collection in BEIR's layout, and NDCG@10 of document vectors on it, in memory.

`python -m models.export.collection ENCODER COLLECTION... --out FILE` measures NDCG@10 and cost by size of window
(docs/decisions/0020) and writes a JSON report. Documents shorter than a window have the same vector at every size, so
vectors are cached by their pieces; the cost is measured on the first documents, without that cache.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import logging
import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.encoder import TextWindow
from models.export.throughput import cpu_name
from models.onnx_encoder import OnnxSparseEncoder
from services.encoders.manifest import read_manifest, resolve_model_directory
from services.encoders.query_table import QueryTable
from services.encoders.vectors import SparseVector, merge_max
from services.errors import ConfigurationError, InvalidInput

log = logging.getLogger("models.export")
VectorCache = dict[tuple[int, ...], SparseVector]


@dataclass(frozen=True)
class Collection:
    """Documents, queries and grades. A document is title, newline, text (or the text alone), in file order."""

    name: str
    ids: list[str]
    documents: list[str]
    queries: dict[str, str]
    grades: dict[str, dict[str, int]]


def read_collection(directory: Path) -> Collection:
    """Read corpus.jsonl or corpus.jsonl.gz, queries.jsonl and qrels.tsv. Judged queries without a text are left out.

    Raises ConfigurationError (`collection_not_found`) for missing files, InvalidInput (`malformed_collection`).
    """
    try:
        collection = _read_files(directory)
    except FileNotFoundError as error:
        raise ConfigurationError(
            "collection_not_found",
            f"There is no {error.filename}: a judged collection has corpus.jsonl (or .gz), queries.jsonl and "
            "qrels.tsv.",
        ) from None
    except KeyError as error:
        raise InvalidInput("malformed_collection", f"{directory}: a line or column {error} is missing.") from None
    except (OSError, EOFError, ValueError, TypeError, zlib.error) as error:
        raise InvalidInput("malformed_collection", f"{directory} cannot be read: {error}.") from None
    if not collection.documents or not collection.queries:
        raise InvalidInput(
            "malformed_collection",
            f"{directory} has {len(collection.documents)} documents and {len(collection.queries)} judged queries.",
        )
    return collection


def _read_files(directory: Path) -> Collection:
    compressed = directory / "corpus.jsonl.gz"
    corpus = (
        gzip.decompress(compressed.read_bytes()) if compressed.exists() else (directory / "corpus.jsonl").read_bytes()
    )
    rows = [json.loads(line) for line in corpus.split(b"\n") if line]
    with (directory / "queries.jsonl").open(encoding="utf-8") as file:
        queries = {row["_id"]: row["text"] for row in map(json.loads, file)}
    grades: dict[str, dict[str, int]] = {}
    with (directory / "qrels.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            grades.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    return Collection(
        directory.name,
        [row["_id"] for row in rows],
        [f"{row['title']}\n{row['text']}" if row.get("title") else row["text"] for row in rows],
        {query: queries[query] for query in grades if query in queries},
        grades,
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
        best = np.argsort(-scores, kind="stable")[:10]
        ranking = [collection.ids[index] for index in best if scores[index] > 0]
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
