"""Dense encoders: one vector of fixed width a query, passage or window.

`DenseModel` is the interface. `DenseEncoder` runs a directory with model.onnx and tokenizer.json on ONNX Runtime, in
the form (pooling, prefixes, length) of its catalogue entry (`docs/decisions/0140`). `StandInDenseEncoder` is for tests:
a text's vector is the sum of random vectors of its pieces. `open_dense_encoder` takes a name or directory;
`load_dense_encoder` takes the identity that an index requires.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.dense_form import read_dense_form
from models.download import MessageReporter, fetch_model
from models.encoder import PieceTokeniser, TextWindow
from models.onnx_encoder import MODEL_FILE, batch_by_length, make_session_options, pad_rows
from services.encoders.catalogue import STANDIN_NAME, KnownDenseEncoder, load_fetchable_models
from services.encoders.manifest import (
    WEIGHTS_ROOT,
    DenseForm,
    Pooling,
    WindowSettings,
    dense_fingerprint,
    describe_file,
    expand_path,
    read_manifest,
)
from services.encoders.vectors import DenseArray
from services.errors import ConfigurationError, EncoderMismatch, InvalidInput
from services.text_encoding import replace_surrogates

TOKENIZER_FILE = "tokenizer.json"
# Padded pieces of one model run. The widest tensors are those of attention: heads x pieces squared x 4 bytes a row.
MAX_BATCH_PIECES = 4096
DenseVectors = NDArray[np.floating[Any]]
HalfVectors = NDArray[np.float16]


class DenseModel(Protocol):
    """A dense encoder. Vectors are unit vectors, float32 or float16 [n, width]."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def width(self) -> int: ...

    def encode_queries(self, texts: Sequence[str]) -> DenseVectors:
        """Return one vector a query. Queries are truncated to the model's length."""
        ...

    def encode_passages(self, texts: Sequence[str]) -> DenseVectors:
        """Return one vector a short passage. Passages are truncated like queries."""
        ...

    def windows(self, text: str, window: WindowSettings) -> list[TextWindow]:
        """Cut a text into windows that cover every character. Raises InvalidInput (`bad_window`)."""
        ...

    def encode_windows(self, windows: Sequence[TextWindow]) -> DenseVectors:
        """Return one vector a window, in order. Raises InvalidInput (`not_finite_scores`)."""
        ...


class DenseEncoder:
    """A dense encoder on ONNX Runtime. Vectors are unit vectors, float16 [n, width].

    `encode_queries` and `encode_passages` truncate texts at the form's `max_pieces`. Long documents go through
    `windows` and `encode_windows`, which truncate nothing. `name` defaults to the directory's. `threads`: threads of
    one call (0: all cores). `batch_pieces`: maximum padded pieces of one model run. `providers`: those of ONNX Runtime,
    in order.
    """

    def __init__(
        self,
        directory: Path,
        form: DenseForm,
        *,
        name: str = "",
        threads: int = 0,
        batch_pieces: int = MAX_BATCH_PIECES,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        """Raises ConfigurationError: `missing_model_file`, `bad_tokenizer`, `bad_model`."""
        model, tokenizer = directory / MODEL_FILE, directory / TOKENIZER_FILE
        for path in (model, tokenizer):
            if not path.is_file():
                raise ConfigurationError(
                    "missing_model_file",
                    f"A dense encoder is a directory with {MODEL_FILE} and {TOKENIZER_FILE}; no {path}.",
                )
        self.form = form
        self.name = name or directory.resolve().name
        self.fingerprint = dense_fingerprint(
            {path.name: describe_file(path).sha256 for path in (model, tokenizer)}, form
        )
        self._batch_pieces = batch_pieces
        self._pieces = PieceTokeniser.load(tokenizer)
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(form.max_pieces)
        self._tokenizer.encode_special_tokens = True
        frame = self._tokenizer.encode(form.passage_prefix).ids
        # Special pieces and prefix before a window's pieces, and the special piece after them.
        self._before, self._after = frame[:-1], frame[-1:]
        try:
            self._session = onnxruntime.InferenceSession(
                str(model), make_session_options(threads), providers=list(providers)
            )
        except Exception as error:  # onnxruntime's errors share no base but Exception
            raise ConfigurationError("bad_model", f"{model} cannot be loaded by ONNX Runtime: {error}") from None
        self._inputs = [tensor.name for tensor in self._session.get_inputs()]
        unknown = set(self._inputs) - {"input_ids", "attention_mask", "token_type_ids"}
        if unknown or "input_ids" not in self._inputs:
            raise ConfigurationError("bad_model", f"{model} has the inputs {self._inputs}; a text encoder has others.")
        width = self._session.get_outputs()[0].shape[-1]
        self.width = width if isinstance(width, int) else 0

    def encode_queries(self, texts: Sequence[str]) -> HalfVectors:
        """Return one vector a query. Raises InvalidInput (`not_finite_scores`) for NaN and infinity."""
        return self._texts([self.form.query_prefix + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> HalfVectors:
        """Return one vector a passage. Raises InvalidInput (`not_finite_scores`) for NaN and infinity."""
        return self._texts([self.form.passage_prefix + text for text in texts])

    def windows(self, text: str, window: WindowSettings) -> list[TextWindow]:
        """Cut a text into windows that cover every character.

        Raises InvalidInput (`bad_window`) when a window would not fit the model.
        """
        room = self.form.max_pieces - len(self._before) - len(self._after)
        if window.pieces > room:
            raise InvalidInput("bad_window", f"The dense encoder {self.name} takes windows of {room} pieces at most.")
        return self._pieces.windows(text, window.pieces, window.overlap)

    def encode_windows(self, windows: Sequence[TextWindow]) -> HalfVectors:
        """Return one vector a window, in order. Raises InvalidInput (`not_finite_scores`)."""
        return self._rows([[*self._before, *window.piece_ids, *self._after] for window in windows])

    def _texts(self, texts: Sequence[str]) -> HalfVectors:
        clean = [replace_surrogates(text) for text in texts]
        return self._rows([encoding.ids for encoding in self._tokenizer.encode_batch(clean)])

    def _rows(self, rows: Sequence[Sequence[int]]) -> HalfVectors:
        batches = batch_by_length([len(row) for row in rows], self._batch_pieces)
        if not batches:
            return np.empty((0, self.width), dtype=np.float16)
        vectors = np.concatenate([self._run([rows[position] for position in batch]) for batch in batches])
        ordered = np.empty_like(vectors)
        ordered[[position for batch in batches for position in batch]] = vectors
        return ordered

    def _run(self, rows: Sequence[Sequence[int]]) -> HalfVectors:
        """Return unit vectors of rows of piece ids with special pieces."""
        ids, mask = (array.astype(np.int64) for array in pad_rows(rows))
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        output = self._session.run(None, {name: feed[name] for name in self._inputs})[0]
        if not np.isfinite(output).all():
            raise InvalidInput(
                "not_finite_scores",
                f"The dense encoder {self.name} gave NaN or infinity. Check its weights and its runtime.",
            )
        # A graph with pooling gives one vector a row.
        return normalise_rows(output if output.ndim == 2 else pool_positions(output, mask, self.form.pooling))


def pool_positions(positions: NDArray[np.float32], mask: NDArray[np.int64], pooling: Pooling) -> NDArray[np.float32]:
    """Pool [rows, pieces, width] to [rows, width] over the positions in `mask` [rows, pieces]."""
    if pooling is Pooling.first:
        return positions[:, 0]
    kept = mask[:, :, None].astype(np.float32)
    mean: NDArray[np.float32] = (positions * kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1.0)
    return mean


def normalise_rows(vectors: NDArray[np.float32]) -> HalfVectors:
    """Scale vectors to length 1, as float16. A zero vector stays zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: HalfVectors = (vectors / np.maximum(length, 1e-12)).astype(np.float16)
    return scaled


class StandInDenseEncoder:
    """A deterministic dense encoder for tests, see `DenseModel`. A call takes microseconds.

    The tokeniser is that of the sparse stand-in. Only texts with common pieces are similar.
    """

    def __init__(self, known: KnownDenseEncoder) -> None:
        self.name, self.fingerprint = known.identity.name, known.identity.fingerprint
        self.width = known.identity.width
        self._pieces = PieceTokeniser.load(WEIGHTS_ROOT / "standin" / "tokenizer.json")
        size = max(self._pieces.vocabulary().values()) + 1
        self._table = np.random.default_rng(0).standard_normal((size, self.width), dtype=np.float32)

    def encode_queries(self, texts: Sequence[str]) -> DenseArray:
        return self._vectors(self._pieces.ids(texts))

    def encode_passages(self, texts: Sequence[str]) -> DenseArray:
        return self._vectors(self._pieces.ids(texts))

    def windows(self, text: str, window: WindowSettings) -> list[TextWindow]:
        return self._pieces.windows(text, window.pieces, window.overlap)

    def encode_windows(self, windows: Sequence[TextWindow]) -> DenseArray:
        return self._vectors([window.piece_ids for window in windows])

    def _vectors(self, rows: Sequence[Sequence[int]]) -> DenseArray:
        sums = [self._table[list(row)].sum(axis=0) for row in rows]
        vectors = np.array(sums, dtype=np.float32).reshape(-1, self.width)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(length, 1e-12), dtype=np.float32)


def open_dense_encoder(
    name: str,
    cache: Path,
    report: MessageReporter = lambda message: None,
    *,
    threads: int = 0,
    max_pieces: int | None = None,
) -> DenseEncoder:
    """Open a dense encoder of the catalogue or of a directory. A catalogue encoder is fetched into `cache` if absent.

    `max_pieces`: the longest input, if shorter than the model's. Raises ConfigurationError: `unknown_model`,
    `not_dense` for another kind of model, and those of `fetch_model`, `read_dense_form` and `DenseEncoder`.
    """
    directory = expand_path(name)
    known = load_fetchable_models().get(name)
    if known is not None:
        if known.form is None:
            raise ConfigurationError("not_dense", f"{name} is not a dense encoder: {known.what}.")
        directory, form = fetch_model(name, cache, report), known.form
    elif not (directory / MODEL_FILE).is_file():
        names = ", ".join(known_name for known_name, model in load_fetchable_models().items() if model.form is not None)
        raise ConfigurationError(
            "unknown_model",
            f"{name!r} is neither a dense encoder that can be fetched ({names}) nor a directory with {MODEL_FILE}.",
        )
    else:
        form = read_dense_form(directory)
    limit = None if max_pieces is None else min(max_pieces, form.max_pieces)
    return DenseEncoder(directory, form.cut(limit), name=name if known else "", threads=threads)


def load_dense_encoder(
    known: KnownDenseEncoder, cache: Path, report: MessageReporter = lambda message: None, *, threads: int = 0
) -> DenseModel:
    """Load exactly the encoder of an identity, fetched into `cache` if needed.

    Raises EncoderMismatch (`dense_mismatch`) when the files have another fingerprint or width, and ConfigurationError
    as `open_dense_encoder`.
    """
    identity = known.identity
    if identity.name == STANDIN_NAME:
        return StandInDenseEncoder(known)
    directory = known.directory or fetch_model(identity.name, cache, report)
    encoder: DenseEncoder | ProjectedEncoder
    if known.sparse:
        from models.projection.encoder import ProjectedEncoder

        encoder = ProjectedEncoder(directory, read_manifest(directory), threads=threads)
    else:
        encoder = DenseEncoder(directory, known.form, name=identity.name, threads=threads)
    if (encoder.fingerprint, encoder.width or identity.width) != (identity.fingerprint, identity.width):
        raise EncoderMismatch(
            "dense_mismatch",
            f"The files in {directory} are not those of the dense encoder {identity.name} ({identity.fingerprint}). "
            "Fetch the encoder or describe it again.",
        )
    return encoder
