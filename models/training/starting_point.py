"""Where training starts: finds weights, tokeniser, query table and IDF in a local directory or under a hub name.

Two layouts are read: that of transformers (config.json, model.safetensors, tokenizer.json, with query_weights.json and
idf.json beside them: also what `save_checkpoint` writes), and that of published inference-free encoders
(`models.hub.layout`). Safetensors only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.export.package import read_vocabulary
from models.hub.conversion import one_tokenizer, published_table
from models.hub.fetch import fetch, is_hub_name
from models.hub.layout import ROUTER, read_layout, require_safetensors
from models.training.idf import Weights, aligned, read_weights
from services.errors import ConfigurationError
from services.manifest import as_path

FILES = ("config.json", "tokenizer.json")


@dataclass(frozen=True)
class StartingPoint:
    """`directory` holds config.json, model.safetensors and tokenizer.json; the tables are [vocabulary] or absent."""

    directory: Path
    pieces: dict[str, int]
    query_weights: Weights | None
    idf: Weights | None


def starting_point(start: str | Path) -> StartingPoint:
    """Reads everything but the weights of the model. `start` is a directory, or a hub name (`models.hub.fetch`).

    Raises ConfigurationError: `unknown_start` for what holds no model, `pickle_refused`, `bad_query_table` for a table
    of another tokeniser, `checkpoint_unsupported` for another tokeniser than WordPiece; and what `fetch` and
    `read_layout` raise.
    """
    root = fetch(str(start)) if is_hub_name(str(start)) else as_path(str(start))
    if not root.is_dir():
        raise ConfigurationError("unknown_start", f"There is no directory {root} to start from.")
    if (root / ROUTER).is_file():
        return _published(root)
    missing = [name for name in FILES if not (root / name).is_file()]
    if missing:
        raise ConfigurationError(
            "unknown_start",
            f"{root} holds no encoder to start from: {' and '.join(missing)} missing (config.json, model.safetensors "
            "and tokenizer.json belong there).",
        )
    require_safetensors(root)
    pieces = read_vocabulary(root / "tokenizer.json")
    query_weights, idf = (
        read_weights(path, pieces) if (path := root / name).is_file() else None
        for name in ("query_weights.json", "idf.json")
    )
    return StartingPoint(root, pieces, query_weights, idf)


def _published(root: Path) -> StartingPoint:
    layout = read_layout(root)
    require_safetensors(layout.model)
    pieces = read_vocabulary(one_tokenizer(layout))
    table = aligned(published_table(layout.table, pieces), pieces)
    # the published encoders' idf.json is their query table as well
    idf = root / "idf.json"
    return StartingPoint(layout.model, pieces, table, read_weights(idf, pieces) if idf.is_file() else None)
