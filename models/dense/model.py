"""What every dense encoder offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.windows import Window
from services.manifest import WindowSettings

Vectors = NDArray[np.floating[Any]]


class DenseModel(Protocol):
    """Vectors have length 1, float32 or float16 [n, width]."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def width(self) -> int: ...

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """One vector a query; the model reads the beginning of one that is longer than it takes."""
        ...

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """One vector a short passage, cut as queries are."""
        ...

    def windows(self, text: str, window: WindowSettings) -> list[Window]:
        """The windows of a text, every character in one. Raises InvalidInput (`bad_window`)."""
        ...

    def encode_windows(self, windows: Sequence[Window]) -> Vectors:
        """One vector a window, in the given order. Raises InvalidInput (`not_finite_scores`)."""
        ...
