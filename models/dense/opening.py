"""Opens a dense encoder by its name, or by the directory of a model at hand."""

from __future__ import annotations

from pathlib import Path

from models.dense.encoder import DenseEncoder
from models.dense.model import DenseModel
from models.dense.standin import StandInDense
from models.fetching import Report, fetch
from models.onnx_encoder import MODEL
from services.dense_form import DenseForm
from services.errors import ConfigurationError, EncoderMismatch
from services.known_dense import STANDIN, KnownDense
from services.known_models import known_models
from services.manifest import as_path


def open_dense(
    name: str,
    cache: Path,
    report: Report = lambda message: None,
    *,
    form: DenseForm | None = None,
    threads: int = 0,
    max_pieces: int | None = None,
) -> DenseEncoder:
    """A known dense encoder, fetched into `cache` if need be, or a directory with model.onnx and tokenizer.json.

    `form` says how a directory's model is used (mean pooling, no prefixes where it is absent); a known one has its
    own. `max_pieces` overrides the form's. Raises ConfigurationError: `unknown_model`, `not_dense` for a known model
    that is none, and as `fetch` and `DenseEncoder`.
    """
    directory, used = as_path(name), form or DenseForm()
    known = known_models().get(name)
    if known is not None:
        if known.form is None:
            raise ConfigurationError("not_dense", f"{name} is no dense encoder: {known.what}.")
        directory, used = fetch(name, cache, report), known.form
    elif not (directory / MODEL).is_file():
        names = ", ".join(one for one, model in known_models().items() if model.form is not None)
        raise ConfigurationError(
            "unknown_model",
            f"{name!r} is neither a dense encoder that can be fetched ({names}) nor a directory with {MODEL}.",
        )
    return DenseEncoder(directory, used.cut(max_pieces), name=name if known else "", threads=threads)


def load_dense(
    known: KnownDense, cache: Path, report: Report = lambda message: None, *, threads: int = 0
) -> DenseModel:
    """The encoder whose vectors are `known`'s and no other's, fetched into `cache` if need be.

    Raises EncoderMismatch (`dense_mismatch`) when the files are not those that its identity was made of, and
    ConfigurationError as `open_dense`.
    """
    identity = known.identity
    if identity.name == STANDIN:
        return StandInDense(known)
    directory = known.directory or fetch(identity.name, cache, report)
    encoder = DenseEncoder(directory, known.form, name=identity.name, threads=threads)
    if (encoder.fingerprint, encoder.width or identity.width) != (identity.fingerprint, identity.width):
        raise EncoderMismatch(
            "dense_mismatch",
            f"The files in {directory} are not those of the dense encoder {identity.name} ({identity.fingerprint}): "
            "fetch or describe it again.",
        )
    return encoder
