"""Writes the files of a model directory, and last its manifest."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from services.errors import ConfigurationError
from services.manifest import MANIFEST, fingerprint, read_manifest, record
from services.query_table import read_weights

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def read_vocabulary(tokenizer: Path) -> dict[str, int]:
    """Piece to id, of a WordPiece tokenizer.json.

    Raises ConfigurationError: `bad_tokenizer`, `checkpoint_unsupported` for another kind of tokeniser.
    """
    try:
        model = json.loads(tokenizer.read_bytes())["model"]
        if model["type"] == "WordPiece":
            return {str(piece): int(index) for piece, index in model["vocab"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError("bad_tokenizer", f"{tokenizer} is no usable tokenizer.json: {error!r}") from None
    raise ConfigurationError("checkpoint_unsupported", f"{tokenizer}: the exporter reads WordPiece tokenisers only.")


def excluded_pieces(vocabulary: dict[str, int]) -> set[int]:
    """Ids that no document may weigh: the special pieces and BERT's placeholders `[unusedN]`, which no text yields."""
    return {index for piece, index in vocabulary.items() if piece in SPECIAL or piece.startswith("[unused")}


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copies a tokenizer.json, byte for byte when it neither truncates nor pads, otherwise with both switched off."""
    content = json.loads(source.read_bytes())
    if content.get("truncation") is None and content.get("padding") is None:
        target.write_bytes(source.read_bytes())
        return
    content["truncation"] = content["padding"] = None
    target.write_text(json.dumps(content, ensure_ascii=False))


def copy_query_weights(source: Path, target: Path, vocabulary: dict[str, int], excluded: Collection[int]) -> int:
    """Copies a query table by id, one piece a line, without the excluded pieces; returns how many were left out.

    Raises ConfigurationError (`bad_query_table`) for weights that are no weights and pieces that the vocabulary lacks.
    """
    table = read_weights(source)
    unknown = [piece for piece in table if piece not in vocabulary]
    if unknown:
        raise ConfigurationError(
            "bad_query_table",
            f"{source} weighs {len(unknown):,} pieces that the tokeniser does not have ({unknown[0]!r} for one): it is "
            "another model's table.",
        )
    kept = {piece: weight for piece, weight in table.items() if vocabulary[piece] not in excluded}
    ordered = sorted(kept, key=vocabulary.__getitem__)
    lines = ",\n".join(f"{json.dumps(piece, ensure_ascii=False)}: {kept[piece]!r}" for piece in ordered)
    target.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    return len(table) - len(kept)


def write_manifest(directory: Path, description: dict[str, Any], names: Collection[str]) -> str:
    """Writes manifest.json for the files `names` of a directory and returns the fingerprint.

    Raises ConfigurationError when the description lacks a member that a manifest needs.
    """
    files = {name: record(directory / name) for name in sorted(names)}
    content = {
        "format": "sparsewell-encoder/1",
        **{key: value for key, value in description.items() if key not in ("format", "files", "fingerprint")},
        "files": {name: found.model_dump() for name, found in files.items()},
        "fingerprint": fingerprint(files),
    }
    (directory / MANIFEST).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return read_manifest(directory).fingerprint
