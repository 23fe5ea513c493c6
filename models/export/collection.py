"""A test collection in BEIR layout, and NDCG@10 of document vectors against it, scored in memory."""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.errors import ConfigurationError, InvalidInput
from services.query_table import QueryTable
from services.vectors import SparseVector


@dataclass(frozen=True)
class Collection:
    """`documents` are title, newline, text (text alone without a title), in the order of the file."""

    name: str
    ids: list[str]
    documents: list[str]
    queries: dict[str, str]
    grades: dict[str, dict[str, int]]


def read_collection(directory: Path) -> Collection:
    """Reads corpus.jsonl or corpus.jsonl.gz, queries.jsonl and qrels.tsv. Judged queries without a text are left out.

    Raises ConfigurationError (`collection_not_found`) for missing files, InvalidInput (`malformed_collection`).
    """
    try:
        found = _read(directory)
    except FileNotFoundError as error:
        raise ConfigurationError(
            "collection_not_found",
            f"There is no {error.filename}: a judged collection is corpus.jsonl (or .gz), queries.jsonl and qrels.tsv.",
        ) from None
    except KeyError as error:
        raise InvalidInput("malformed_collection", f"{directory}: a line or column {error} is missing.") from None
    except (OSError, EOFError, ValueError, TypeError, zlib.error) as error:
        raise InvalidInput("malformed_collection", f"{directory} cannot be read: {error}.") from None
    if not found.documents or not found.queries:
        raise InvalidInput(
            "malformed_collection",
            f"{directory} has {len(found.documents)} documents and {len(found.queries)} judged queries.",
        )
    return found


def _read(directory: Path) -> Collection:
    packed = directory / "corpus.jsonl.gz"
    corpus = gzip.decompress(packed.read_bytes()) if packed.exists() else (directory / "corpus.jsonl").read_bytes()
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
    """NDCG with linear gains, the form of trec_eval."""
    gain = sum(grades.get(document, 0) / math.log2(place + 2) for place, document in enumerate(ranking[:depth]))
    best = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:depth]
    ideal = sum(grade / math.log2(place + 2) for place, grade in enumerate(best))
    return gain / ideal if ideal else 0.0


def mean_ndcg(collection: Collection, vectors: Sequence[SparseVector], table: QueryTable) -> float:
    """Mean NDCG@10 over the judged queries; the score is the dot product, ties go to the earlier document."""
    ids = np.concatenate([vector.ids for vector in vectors])
    weights = np.concatenate([vector.weights for vector in vectors])
    owners = np.repeat(np.arange(len(vectors)), [len(vector) for vector in vectors])
    order = np.argsort(ids, kind="stable")
    ids, weights, owners = ids[order], weights[order], owners[order]
    total = 0.0
    for query, text in collection.queries.items():
        scores = np.zeros(len(vectors))
        asked = table.encode(text, max_pieces=8192)
        for piece, weight in zip(asked.ids, asked.weights, strict=True):
            start, end = np.searchsorted(ids, [piece, piece + 1])
            scores[owners[start:end]] += weight * weights[start:end]
        best = np.argsort(-scores, kind="stable")[:10]
        ranking = [collection.ids[index] for index in best if scores[index] > 0]
        total += ndcg(ranking, collection.grades[query])
    return total / len(collection.queries)
