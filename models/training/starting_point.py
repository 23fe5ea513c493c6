"""Where training starts: finds weights, tokeniser, query table and IDF in a local directory or under a hub name.

Three layouts are read: that of transformers (config.json, model.safetensors, tokenizer.json, with query_weights.json
and idf.json beside them: also what `save_checkpoint` writes), that of sentence-transformers (modules.json, a router, a
static query side), and either of them under a hub name where there is a network. Safetensors only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from models.export.package import read_vocabulary
from models.training.idf import Weights, read_weights
from services.errors import ConfigurationError

HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
FETCHED = ["*.json", "*.safetensors", "*.txt"]


@dataclass(frozen=True)
class StartingPoint:
    """`directory` holds config.json, model.safetensors and tokenizer.json; the tables are [vocabulary] or absent."""

    directory: Path
    pieces: dict[str, int]
    query_weights: Weights | None
    idf: Weights | None


def starting_point(start: str | Path) -> StartingPoint:
    """Reads everything but the weights of the model.

    Raises ConfigurationError: `unknown_start` for what is neither a directory of such a layout nor a hub name that can
    be fetched, `bad_query_table` for a table of another tokeniser, `checkpoint_unsupported` for another tokeniser than
    WordPiece.
    """
    root = _root(start)
    directory = next((found for found in _candidates(root) if _holds_a_model(found)), None)
    if directory is None:
        raise ConfigurationError(
            "unknown_start",
            f"{root} holds no encoder to start from: config.json, model.safetensors and tokenizer.json belong there "
            "(pickled weights, pytorch_model.bin, are never read).",
        )
    pieces = read_vocabulary(directory / "tokenizer.json")
    return StartingPoint(directory, pieces, _query_weights(root, pieces), _table(root / "idf.json", pieces))


def _root(start: str | Path) -> Path:
    root = Path(start).expanduser()
    if root.is_dir():
        return root
    if isinstance(start, Path) or not HUB_NAME.match(start):
        raise ConfigurationError("unknown_start", f"There is no directory {start} to start from.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(start, allow_patterns=FETCHED))
    except Exception as error:  # the hub's client raises errors of several libraries
        raise ConfigurationError(
            "unknown_start",
            f"{start} is no directory here and could not be fetched as a hub name ({error}); without a network, give "
            "the path of a directory.",
        ) from None


def _holds_a_model(directory: Path) -> bool:
    return all((directory / name).is_file() for name in ("config.json", "model.safetensors", "tokenizer.json"))


def _candidates(root: Path) -> Iterator[Path]:
    """The root itself, then the document side of a router in sentence-transformers' layout."""
    yield root
    yield from sorted(path for path in root.iterdir() if path.is_dir() and path.name.startswith("document_"))


def _query_weights(root: Path, pieces: dict[str, int]) -> Weights | None:
    own = _table(root / "query_weights.json", pieces)
    if own is not None:
        return own
    for side in sorted(root.glob("query_*")):
        config = side / "config.json"
        if not config.is_file():
            continue
        named = json.loads(config.read_bytes()).get("path")
        if named:
            # the published layout names idf.json at the root, or beside the static module
            for place in (root / Path(named).name, side / Path(named).name):
                found = _table(place, pieces)
                if found is not None:
                    return found
        if (side / "model.safetensors").is_file():
            return _static_weights(side / "model.safetensors", len(pieces))
    return None


def _static_weights(path: Path, vocabulary: int) -> Weights:
    tensors = load_file(path)
    weights = np.asarray(tensors.get("weight", np.empty(0)), dtype=np.float32)
    if weights.shape != (vocabulary,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise ConfigurationError(
            "bad_query_table", f"{path} is no query table for {vocabulary:,} pieces with finite weights of at least 0."
        )
    return weights


def _table(path: Path, pieces: dict[str, int]) -> Weights | None:
    return read_weights(path, pieces) if path.is_file() else None
