"""Loads an encoder by the name of shipped weights or by a path. Never pickle, never code from the directory.

A stand-in encoder without a model: logarithmic piece counts, deterministic, in microseconds.

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

from models.encoder import Encoder, TextWindow, WordPieceEncoder
from services.encoders.manifest import Manifest, read_manifest, resolve_model_directory
from services.encoders.vectors import EMPTY_VECTOR, SparseVector
from services.errors import ConfigurationError

# What a singular or plural gets of the weight of the word that is there.
EXPANSION_WEIGHT = 0.25


class StandInEncoder(WordPieceEncoder):
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

    def encode(self, windows: Sequence[TextWindow]) -> list[SparseVector]:
        return [self._vector(window) for window in windows]

    def _vector(self, window: TextWindow) -> SparseVector:
        counts = Counter(piece for piece in window.piece_ids if piece not in self._special)
        if not counts:
            return EMPTY_VECTOR
        weights = {piece: float(np.log1p(count)) for piece, count in counts.items()}
        for piece, weight in list(weights.items()):
            other = self._other_number.get(piece)
            if other is not None and other not in counts:
                weights[other] = max(weights.get(other, 0.0), EXPANSION_WEIGHT * weight)
        # Ids descend by weight here, as a model's top-k would; of equal weights the lower id stays.
        kept = sorted(weights.items(), key=lambda item: (-item[1], item[0]))[: self.manifest.top_k]
        return SparseVector.of([piece for piece, _ in kept], [weight for _, weight in kept])


STANDIN_ARCHITECTURE = "standin"
DECODER_ARCHITECTURE = "MistralForSparseEncoding"


def load_encoder(name_or_path: str, *, threads: int = 0, batch_pieces: int | None = None) -> Encoder:
    """The encoder of that name or directory, its files compared with their checksums.

    `threads` is the number of threads of one call (0: all cores) and `batch_pieces` the padded pieces of one run of
    the model; the stand-in needs neither. Raises ConfigurationError: `unknown_encoder`, `bad_manifest`,
    `missing_model_file`, `corrupt_model_file`, `bad_tokenizer`, `bad_model`, `missing_extra`.
    """
    directory = resolve_model_directory(name_or_path)
    manifest = read_manifest(directory)
    if manifest.architecture == STANDIN_ARCHITECTURE:
        return StandInEncoder(directory, manifest)
    if manifest.architecture == DECODER_ARCHITECTURE:
        try:
            from models.decoder.encoder import DecoderEncoder
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                "missing_extra",
                f"The encoder {manifest.name} is a decoder-only model and needs the package {error.name}: "
                "pip install -e '.[train]'.",
            ) from None
        return DecoderEncoder(directory, manifest, threads=threads, batch_pieces=batch_pieces)
    from models.onnx_encoder import MAX_BATCH_PIECES, OnnxSparseEncoder

    return OnnxSparseEncoder(directory, manifest, threads=threads, batch_pieces=batch_pieces or MAX_BATCH_PIECES)
