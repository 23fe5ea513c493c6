"""Writes a model directory of a decoder, that workers and the API read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.decoder.module import FILES, EchoSplade
from models.export.package import write_manifest
from models.export.placing import replacing
from models.registry import DECODER
from models.training.idf import write_weights
from services.errors import ConfigurationError
from services.query_table import QUERY_WEIGHTS


def write_model_directory(
    document: EchoSplade,
    query_weights: np.ndarray,
    out: Path,
    *,
    positions: int,
    top_k: int = 256,
    window: tuple[int, int] = (254, 32),
    dtype: torch.dtype = torch.bfloat16,
    extra: dict[str, Any] | None = None,
) -> str:
    """Adapters merged, weights in `dtype`; returns the fingerprint. The directory's name becomes the encoder's.

    `query_weights` float32 [vocabulary], `positions` the longest input of the decoder, `window` pieces and overlap.
    `extra` goes into the manifest (licence, training record). What was at `out` stays until all is written. Raises
    ConfigurationError (`bad_window`, `unwritable_file`) and InvalidInput (`not_finite_weights`).
    """
    room = require_room(document, positions, window[0])
    description = {
        "name": out.resolve().name,
        "architecture": DECODER,
        "vocabulary": document.get_embedding_dimension(),
        # Everywhere else a window leaves two places for the pieces that open and close it.
        "max_pieces": room + 2,
        "window": {"pieces": window[0], "overlap": window[1]},
        "top_k": min(top_k, document.get_embedding_dimension()),
        "activation": "log1p_relu",
        "pooling": "max over the second copy",
        "head": "tied" if document.output is None else "own",
        "precision": str(dtype).removeprefix("torch."),
        "licence": "unstated",
        **(extra or {}),
    }
    with replacing(out) as fresh:
        document.save(str(fresh), dtype=dtype)
        write_weights(fresh / QUERY_WEIGHTS, query_weights, document.tokenizer.get_vocab(), document.excluded_ids())
        return write_manifest(fresh, description, [*FILES, QUERY_WEIGHTS])


def require_room(document: EchoSplade, positions: int, pieces: int) -> int:
    """The longest window of a decoder of so many positions. Raises ConfigurationError (`bad_window`)."""
    room = document.echo.room(positions)
    if pieces > room:
        raise ConfigurationError(
            "bad_window", f"The decoder reads a text twice: windows have at most {room} pieces, not {pieces}."
        )
    return room
