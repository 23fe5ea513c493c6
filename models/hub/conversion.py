"""Makes a checkpoint of ours (what the exporter reads) of a published encoder."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from models.export.package import read_vocabulary
from models.hub.layout import HubLayout, read_layout, read_object, require_safetensors
from models.training.recipe_encoder import Activation, EncoderRecipe
from services.errors import ConfigurationError
from services.query_table import read_weights

_NOT_OURS = ("version", "truncation", "padding", "post_processor", "decoder")
_LICENCE = re.compile(r"^license:\s*[\"']?([\w.+-]+)", re.MULTILINE)


def convert(directory: Path, checkpoint: Path, activation: Activation | None = None) -> int | None:
    """Writes config.json, model.safetensors (a link), tokenizer.json, query_weights.json and recipe.json.

    `activation` is for directories in which no file names it, and may not contradict one. Returns the longest input
    that the files name, special pieces included. Raises ConfigurationError: what `read_layout` raises,
    `remote_code_refused`, `pickle_refused`, `unknown_activation`, `bad_query_table`, `checkpoint_unsupported`.
    """
    layout = read_layout(directory)
    config = read_object(layout.model / "config.json")
    _refuse_code(layout.model, config)
    weights = require_safetensors(layout.model)
    recipe = EncoderRecipe(activation=_agreed(directory, layout, activation), regulariser="flops")
    tokenizer = one_tokenizer(layout)
    vocabulary = read_vocabulary(tokenizer)
    table = published_table(layout.table, vocabulary)
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (checkpoint / "model.safetensors").symlink_to(weights.resolve())
    (checkpoint / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    (checkpoint / "query_weights.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    recipe.write(checkpoint)
    return layout.longest


def stated_licence(directory: Path) -> str | None:
    """The licence that the README.md of a repository states in its head."""
    try:
        text = (directory / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    found = _LICENCE.search(head)
    return found[1] if found else None


def _refuse_code(folder: Path, config: dict[str, Any]) -> None:
    code = config.get("auto_map")
    if code:
        named = ", ".join(sorted(map(str, code.values()))) if isinstance(code, dict) else str(code)
        raise ConfigurationError(
            "remote_code_refused",
            f"{folder / 'config.json'} asks for code of its own ({named}), and no code of a model is ever run: take an "
            "encoder whose model transformers has itself (of the OpenSearch family doc-v3-distill in place of "
            "doc-v3-gte).",
        )


def _agreed(directory: Path, layout: HubLayout, given: Activation | None) -> Activation:
    if layout.activation is None and given is None:
        raise ConfigurationError(
            "unknown_activation",
            f"No file of {directory} names the activation: say --activation log1p_relu (OpenSearch doc-v1 and doc-v2) "
            "or log1p_log1p_relu (doc-v3).",
        )
    if layout.activation is not None and given not in {None, layout.activation}:
        raise ConfigurationError(
            "unknown_activation",
            f"{directory} names the activation {layout.activation}, not {given}: leave --activation out.",
        )
    return layout.activation or given or "log1p_relu"


def one_tokenizer(layout: HubLayout) -> Path:
    """The tokeniser of both sides: they may differ in where they cut, pad and put special pieces, which we do not do by
    it, and in how their pieces are joined to text again."""
    contents = [read_object(path) | dict.fromkeys(_NOT_OURS) for path in layout.tokenizers]
    if any(content != contents[0] for content in contents):
        raise ConfigurationError(
            "hub_unsupported",
            f"{layout.tokenizers[0]} and {layout.tokenizers[1]} differ: queries and documents would be cut into other "
            "pieces, and a table serves one tokeniser.",
        )
    return layout.tokenizers[0]


def published_table(path: Path, vocabulary: dict[str, int]) -> dict[str, float]:
    """Piece to weight, of a table in any form that is published. Raises ConfigurationError (`bad_query_table`)."""
    if path.suffix == ".safetensors":
        table = _tensor_table(path, vocabulary)
    elif path.suffix == ".json":
        table = read_weights(path)
    else:
        table = _line_table(path)
    unknown = [piece for piece in table if piece not in vocabulary]
    if unknown:
        raise ConfigurationError(
            "bad_query_table",
            f"{path} weighs {len(unknown):,} pieces that the tokeniser does not have ({unknown[0]!r} for one): it is "
            "another model's table.",
        )
    return table


def _tensor_table(path: Path, vocabulary: dict[str, int]) -> dict[str, float]:
    try:
        weights = load_file(path)["weight"].astype(np.float64)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            "bad_query_table", f"{path} holds no readable tensor `weight` ({error}): fetch it again."
        ) from None
    if weights.ndim != 1 or len(weights) <= max(vocabulary.values()):
        raise ConfigurationError(
            "bad_query_table",
            f"{path} has a table of the shape {weights.shape} for a vocabulary of {len(vocabulary):,}: it is another "
            "model's table.",
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ConfigurationError(
            "bad_query_table",
            f"{path} holds weights that are negative, NaN or infinite: OpenSearch refuses such boosts. Train the table "
            "with weights held at 0 or above.",
        )
    # float32 as it is written shortest, so that the file reads well and gives the same float32 again
    return {
        piece: float(str(np.float32(weights[index])))
        for piece, index in sorted(vocabulary.items(), key=lambda pair: pair[1])
        if weights[index] > 0
    }


def _line_table(path: Path) -> dict[str, float]:
    """Lines of piece, tab and weight."""
    table: dict[str, float] = {}
    try:
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line.strip():
                piece, weight = line.rstrip("\r").rsplit("\t", 1)
                table[piece] = float(weight)
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad_query_table", f"{path} is no table of pieces and weights: {error}.") from None
    if not all(0 <= weight < math.inf for weight in table.values()):
        raise ConfigurationError("bad_query_table", f"{path} holds weights that are negative, NaN or infinite.")
    return table
