"""`python -m models.export.choose_window MODEL_DIR COLLECTION...`: NDCG@10 and cost by size of window.

Writes a JSON report. Documents shorter than a window give the same vector at every size, so vectors are kept by
their pieces; the cost is measured apart, on the first documents and without that store.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

from models.export.collection import Collection, mean_ndcg, read_collection
from models.export.machine import cpu_name
from models.onnx_encoder import OnnxSparseEncoder
from models.windows import Window
from services.manifest import read_manifest, resolve
from services.query_table import QueryTable
from services.vectors import SparseVector, merge_max

log = logging.getLogger("models.export")
Known = dict[tuple[int, ...], SparseVector]


def quality(
    encoder: OnnxSparseEncoder, table: QueryTable, collection: Collection, size: tuple[int, int], known: Known
) -> dict[str, Any]:
    """NDCG@10 of whole documents cut to windows of `size` (pieces, overlap), maximum over windows."""
    cuts = [encoder.windows(text, *size) for text in collection.documents]
    new: dict[tuple[int, ...], Window] = {w.piece_ids: w for made in cuts for w in made if w.piece_ids not in known}
    known.update(zip(new, encoder.encode(list(new.values())), strict=True))
    vectors = [merge_max(known[window.piece_ids] for window in made) for made in cuts]
    return {
        "ndcg_at_10": round(mean_ndcg(collection, vectors, table), 4),
        "windows_a_document": round(sum(map(len, cuts)) / len(cuts), 3),
        "weights_a_document": round(sum(map(len, vectors)) / len(vectors), 1),
    }


def cost(encoder: OnnxSparseEncoder, texts: list[str], size: tuple[int, int]) -> float:
    """Milliseconds of processor time a document, tokenising included: hardly disturbed by a busy machine."""
    began = time.process_time()
    encoder.encode([window for text in texts for window in encoder.windows(text, *size)])
    return round((time.process_time() - began) * 1000 / len(texts), 1)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m models.export.choose_window", description=__doc__)
    parser.add_argument("encoder")
    parser.add_argument("collections", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", default="126:16,190:24,254:32,382:48,510:64", help="pieces:overlap, comma separated")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sample", type=int, default=64, help="documents of which the cost is measured")
    arguments = parser.parse_args()
    directory = resolve(arguments.encoder)
    encoder = OnnxSparseEncoder(directory, read_manifest(directory), threads=arguments.threads)
    table = QueryTable.load(directory)
    sizes = [
        (int(pieces), int(overlap)) for pieces, _, overlap in (s.partition(":") for s in arguments.sizes.split(","))
    ]
    results: dict[str, Any] = {}
    for collection in map(read_collection, arguments.collections):
        known: Known = {}
        results[collection.name] = {}
        for size in sizes:
            label = f"{size[0]} pieces, overlap {size[1]}"
            found = quality(encoder, table, collection, size, known)
            found["cpu_ms_a_document"] = cost(encoder, collection.documents[: arguments.sample], size)
            results[collection.name][label] = found
            log.info("%s, %s: %s", collection.name, label, found)
    report = {
        "encoder": encoder.manifest.name,
        "fingerprint": encoder.fingerprint,
        "machine": {"cpu": cpu_name(), "threads": arguments.threads},
        "collections": results,
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
