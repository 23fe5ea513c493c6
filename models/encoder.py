"""What every document encoder offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from models.windows import Window
from services.manifest import Manifest
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
