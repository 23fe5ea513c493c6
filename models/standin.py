"""A stand-in encoder without a model: logarithmic piece counts, deterministic, in microseconds.

For tests of everything around an encoder, and for a first look where no weights fit. It serves like any other encoder
from a model directory of its own (`models/weights/standin`), whose query table is plain inverse document frequency, so
it ranks by TF-IDF over pieces. One expansion, so that explanations have one to show: a word also weighs a little for
its plural or singular.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.encoder import PieceEncoder
from models.windows import Window
from services.manifest import Manifest
from services.vectors import EMPTY, SparseVector

# What a singular or plural gets of the weight of the word that is there.
EXPANSION = 0.25


class StandInEncoder(PieceEncoder):
    """Encoder of a model directory with the architecture `standin`, see `models.encoder.Encoder`."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        """Raises ConfigurationError for missing or changed files."""
        super().__init__(directory, manifest)
        vocabulary = self._pieces.vocabulary()
        self._special = frozenset(
            vocabulary[piece] for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if piece in vocabulary
        )
        self._other_number: dict[int, int] = {}
        for piece, singular in vocabulary.items():
            plural = vocabulary.get(f"{piece}s")
            if plural is not None and len(piece) > 2 and piece.isalpha():
                self._other_number[singular] = plural
                self._other_number[plural] = singular

    def encode(self, windows: Sequence[Window]) -> list[SparseVector]:
        return [self._vector(window) for window in windows]

    def _vector(self, window: Window) -> SparseVector:
        counts = Counter(piece for piece in window.piece_ids if piece not in self._special)
        if not counts:
            return EMPTY
        weights = {piece: float(np.log1p(count)) for piece, count in counts.items()}
        for piece, weight in list(weights.items()):
            other = self._other_number.get(piece)
            if other is not None and other not in counts:
                weights[other] = max(weights.get(other, 0.0), EXPANSION * weight)
        # Ids descend by weight here, as a model's top-k would; of equal weights the lower id stays.
        kept = sorted(weights.items(), key=lambda item: (-item[1], item[0]))[: self.manifest.top_k]
        return SparseVector.of([piece for piece, _ in kept], [weight for _, weight in kept])
