"""Encoders by name: `load_encoder` opens shipped weights or a directory.

The manifest's `architecture` chooses the class: an ONNX graph, a decoder, or `StandInEncoder`. Files are compared with
their checksums. Pickles are refused, and no code from the directory runs (`docs/decisions/0130`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.encoder import Encoder, TextWindow, WordPieceEncoder
from services.encoders.manifest import Manifest, read_manifest, resolve_model_directory
from services.encoders.vectors import EMPTY_VECTOR, SparseVector
from services.errors import ConfigurationError

if TYPE_CHECKING:
    from models.projection.encoder import ProjectedEncoder

STANDIN_ARCHITECTURE = "standin"
DECODER_ARCHITECTURE = "MistralForSparseEncoding"
PROJECTED_ARCHITECTURE = "BertForProjectedExpansion"
# Weight of the plural of a word (or of its singular), as a share of the word's weight.
EXPANSION_WEIGHT = 0.25


def load_encoder(name_or_path: str, *, threads: int = 0, batch_pieces: int | None = None) -> Encoder:
    """Load the encoder of a name or directory after comparing its files with their checksums.

    `threads`: threads of one call (0: all cores). `batch_pieces`: maximum padded pieces of one model run. Raises
    ConfigurationError: `unknown_encoder`, `bad_manifest`, `missing_model_file`, `corrupt_model_file`, `bad_tokenizer`,
    `bad_model`, `missing_extra`.
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

    if manifest.architecture == PROJECTED_ARCHITECTURE:
        from models.projection.encoder import ProjectedEncoder

        return ProjectedEncoder(directory, manifest, threads=threads, batch_pieces=batch_pieces or MAX_BATCH_PIECES)
    return OnnxSparseEncoder(directory, manifest, threads=threads, batch_pieces=batch_pieces or MAX_BATCH_PIECES)


def load_projected_encoder(name_or_path: str, *, threads: int = 0) -> ProjectedEncoder:
    """Load a projected encoder. Raises ConfigurationError (`not_projected`, and those of `load_encoder`)."""
    from models.projection.encoder import ProjectedEncoder

    encoder = load_encoder(name_or_path, threads=threads)
    if not isinstance(encoder, ProjectedEncoder):
        raise ConfigurationError("not_projected", f"{encoder.manifest.name} is not a projected encoder.")
    return encoder


class StandInEncoder(WordPieceEncoder):
    """An encoder without a model: the logarithm of piece counts, deterministic, in microseconds.

    This encoder is for tests, and for a first look where no weights fit. Its directory (`models/weights/standin`) has a
    query table of inverse document frequencies, so it ranks by TF-IDF over pieces. A word also gives its plural or
    singular a little weight, so that explanations have an expansion to show.
    """

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
        # Keep the top k as a model does; among equal weights, keep the lower id.
        kept = sorted(weights.items(), key=lambda item: (-item[1], item[0]))[: self.manifest.top_k]
        return SparseVector.of([piece for piece, _ in kept], [weight for _, weight in kept])
