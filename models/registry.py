"""Loads an encoder by the name of shipped weights or by a path. Never pickle, never code from the directory."""

from __future__ import annotations

from models.encoder import Encoder
from services.errors import ConfigurationError
from services.manifest import read_manifest, resolve

STANDIN = "standin"
DECODER = "MistralForSparseEncoding"


def load_encoder(name_or_path: str, *, threads: int = 0, batch_pieces: int | None = None) -> Encoder:
    """The encoder of that name or directory, its files compared with their checksums.

    `threads` is the number of threads of one call (0: all cores) and `batch_pieces` the padded pieces of one run of
    the model; the stand-in needs neither. Raises ConfigurationError: `unknown_encoder`, `bad_manifest`,
    `missing_model_file`, `corrupt_model_file`, `bad_tokenizer`, `bad_model`, `missing_extra`.
    """
    directory = resolve(name_or_path)
    manifest = read_manifest(directory)
    if manifest.architecture == STANDIN:
        from models.standin import StandInEncoder

        return StandInEncoder(directory, manifest)
    if manifest.architecture == DECODER:
        try:
            from models.decoder.encoder import DecoderEncoder
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                "missing_extra",
                f"The encoder {manifest.name} is a decoder-only model and needs the package {error.name}: "
                "pip install -e '.[train]'.",
            ) from None
        return DecoderEncoder(directory, manifest, threads=threads, batch_pieces=batch_pieces)
    from models.onnx_encoder import BATCH_PIECES, OnnxSparseEncoder

    return OnnxSparseEncoder(directory, manifest, threads=threads, batch_pieces=batch_pieces or BATCH_PIECES)
