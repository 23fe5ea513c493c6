"""What a reranker offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Scorer(Protocol):
    """Scores of passages for a query, float32 [passages], higher is better; only their order and ratios matter."""

    def __call__(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]: ...
