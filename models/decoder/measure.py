"""Measurement of a decoder encoder: `python -m models.decoder.measure MODEL_DIR COLLECTION... --out FILE`.

The report has NDCG@10, weights and documents a second. Whole documents are encoded in the manifest's windows, merged by
the maximum, and cut to the heaviest `top_k`. Scoring is in memory, with the encoder's query table and with a table of
the collection's own IDF.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.decoder.encoder import DecoderEncoder
from models.decoder.tokenisation import passage_idf_weights, read_tokenizer
from models.export.collection import Collection, mean_ndcg, read_collection
from models.export.throughput import cpu_name
from services.encoders.manifest import read_manifest, resolve_model_directory
from services.encoders.query_table import QueryTable
from services.encoders.vectors import SparseVector, merge_max
from services.errors import SparsewellError

log = logging.getLogger("models.decoder")


def build_collection_table(directory: Path, table: QueryTable, documents: Sequence[str]) -> QueryTable:
    """Build a query table of IDF over `documents`, for the pieces that have a weight in the encoder's table."""
    tokenizer, size = read_tokenizer(directory), table.manifest.vocabulary
    tokenizer.encode_special_tokens = True
    weights = passage_idf_weights(tokenizer, documents, size, set(range(size)) - set(table.weighted_ids()))
    return QueryTable(table.manifest, tokenizer, weights.tolist())


def measure_collection(encoder: DecoderEncoder, directory: Path, collection: Collection) -> dict[str, Any]:
    """Measure an encoder on a collection."""
    table = QueryTable.load(directory)
    cuts = [encoder.windows(text) for text in collection.documents]
    windows = [window for document in cuts for window in document]
    began, busy = time.perf_counter(), time.process_time()
    encoded = iter(encoder.encode(windows))
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    vectors: list[SparseVector] = [
        merge_max([next(encoded) for _ in document]).top(encoder.manifest.top_k) for document in cuts
    ]
    idf = build_collection_table(directory, table, collection.documents)
    pieces = sum(len(window.piece_ids) for window in windows)
    return {
        "documents": len(vectors),
        "ndcg_at_10": round(mean_ndcg(collection, vectors, table), 4),
        "ndcg_at_10_with_idf_of_the_collection": round(mean_ndcg(collection, vectors, idf), 4),
        "weights_a_document": round(float(np.mean([len(vector) for vector in vectors])), 1),
        "pieces_a_document": round(pieces / len(vectors), 1),
        "documents_a_second": round(len(vectors) / seconds, 2),
        "documents_a_processor_second": round(len(vectors) / busy, 2),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    parser = argparse.ArgumentParser(prog="python -m models.decoder.measure", description=__doc__)
    parser.add_argument("encoder")
    parser.add_argument("collections", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    try:
        report = _build_report(arguments.encoder, arguments.collections, arguments.threads)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except (SparsewellError, OSError) as error:
        raise SystemExit(str(error)) from None


def _build_report(name: str, collections: Sequence[Path], threads: int) -> dict[str, Any]:
    directory = resolve_model_directory(name)
    encoder = DecoderEncoder(directory, read_manifest(directory), threads=threads)
    results = {}
    for collection in map(read_collection, collections):
        results[collection.name] = measure_collection(encoder, directory, collection)
        log.info("%s: %s", collection.name, results[collection.name])
    extra = encoder.manifest.model_extra or {}
    return {
        "encoder": encoder.manifest.name,
        "fingerprint": encoder.fingerprint,
        "machine": {
            "device": str(encoder.device),
            "cpu": cpu_name(),
            "threads": threads,
            "precision": str(encoder.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "load_average_after": round(os.getloadavg()[0], 1),
        },
        "window": encoder.manifest.window.model_dump(),
        "training": extra.get("training"),
        "collections": results,
    }


if __name__ == "__main__":
    main()
