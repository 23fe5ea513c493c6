"""What every document encoder offers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from models.tokenising import Pieces
from models.windows import Window
from services.errors import InvalidInput
from services.manifest import Manifest, verified
from services.vectors import SparseVector


class Encoder(Protocol):
    """A document encoder with the directory's manifest. `encode` is deterministic and independent of its batch."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def fingerprint(self) -> str: ...

    def windows(self, text: str, pieces: int | None = None, overlap: int | None = None) -> list[Window]:
        """The windows of a text; sizes not given are the manifest's. See `models.windows.cut_windows`.

        Raises InvalidInput (`bad_window`) when a window would not fit the model.
        """
        ...

    def encode(self, windows: Sequence[Window]) -> list[SparseVector]:
        """One vector a window, in the given order. A window without pieces has the empty vector.

        Raises InvalidInput (`not_finite_weights`, with the position as `window`) when the model gives NaN or infinity.
        """
        ...

    def piece(self, piece_id: int) -> str:
        """The piece of a vocabulary id."""
        ...


class PieceEncoder:
    """What encoders with a WordPiece tokeniser of their own share: everything but the weights."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        """Raises ConfigurationError for a missing, changed or unusable tokeniser."""
        self.manifest = manifest
        self._pieces = Pieces.load(verified(directory, manifest, "tokenizer.json"))

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    def piece(self, piece_id: int) -> str:
        return self._pieces.piece(piece_id)

    def windows(self, text: str, pieces: int | None = None, overlap: int | None = None) -> list[Window]:
        settings = self.manifest.window
        size = settings.pieces if pieces is None else pieces
        room = self.manifest.max_pieces - 2
        if size > room:
            raise InvalidInput(
                "bad_window", f"The encoder {self.manifest.name} takes windows of at most {room} pieces, not {size}."
            )
        return self._pieces.windows(text, size, settings.overlap if overlap is None else overlap)


def finite_vector(ids: np.ndarray, weights: np.ndarray, encoder: str, position: int, window: Window) -> SparseVector:
    """The vector of a window from the k heaviest pieces that a model gave.

    Raises InvalidInput (`not_finite_weights`, with the position as `window`) for NaN or infinity.
    """
    if not np.isfinite(weights).all():
        raise InvalidInput(
            "not_finite_weights",
            f"The encoder {encoder} gave NaN or infinite weights for window {position} (characters {window.start} to "
            f"{window.end}); the text or the weights of the model are at fault.",
            window=position,
        )
    return SparseVector.of(ids, weights)
