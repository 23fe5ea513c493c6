"""`python -m models.export.standin CHECKPOINT OUT_DIR`: the directory of the stand-in encoder (no model in it).

Takes tokenizer.json and idf.json (piece to inverse document frequency) of the checkpoint's directory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from models.export.package import copy_query_weights, copy_tokenizer, excluded_pieces, read_vocabulary, write_manifest


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.export.standin", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    source, out = arguments.checkpoint, arguments.out
    out.mkdir(parents=True, exist_ok=True)
    vocabulary = read_vocabulary(source / "tokenizer.json")
    copy_tokenizer(source / "tokenizer.json", out / "tokenizer.json")
    copy_query_weights(source / "idf.json", out / "query_weights.json", vocabulary, excluded_pieces(vocabulary))
    description = {
        "name": out.resolve().name,
        "architecture": "standin",
        "vocabulary": len(vocabulary),
        "max_pieces": 512,
        "window": {"pieces": 382, "overlap": 48},
        "top_k": 256,
        "activation": "log1p_count",
        "pooling": "count",
        "licence": "Apache-2.0",
        "training": {"query table": "plain IDF of the first shipped encoder's training passages"},
    }
    write_manifest(out, description, ("tokenizer.json", "query_weights.json"))


if __name__ == "__main__":
    main()
