"""A dense encoder on ONNX Runtime: a directory with model.onnx and tokenizer.json, and how its vectors are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.batching import length_batches
from models.onnx_encoder import MODEL, session_options
from models.tokenising import Pieces
from models.windows import Window
from services.dense_form import DenseForm, Pooling, dense_fingerprint
from services.errors import ConfigurationError, InvalidInput
from services.manifest import WindowSettings, record

TOKENIZER = "tokenizer.json"
# Padded pieces of one run of the model. The widest tensors are attention's, heads x pieces squared x 4 bytes a row.
BATCH_PIECES = 4096

Dense = NDArray[np.float16]


class DenseEncoder:
    """Vectors are float16 [n, width] of length 1; `name` is that of the directory unless given.

    `encode_queries` and `encode_passages` cut texts at the form's `max_pieces`, as a teacher of short passages does
    (see `models.training.vectors.Teacher`); a long document goes through `windows` and `encode_windows`, which cut
    nothing. `threads` is the number of threads of one call (0: all cores), `providers` are ONNX Runtime's, in order.
    """

    def __init__(
        self,
        directory: Path,
        form: DenseForm,
        *,
        name: str = "",
        threads: int = 0,
        batch_pieces: int = BATCH_PIECES,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        """Raises ConfigurationError: `missing_model_file`, `bad_tokenizer`, `bad_model`."""
        model, tokenizer = directory / MODEL, directory / TOKENIZER
        for path in (model, tokenizer):
            if not path.is_file():
                raise ConfigurationError(
                    "missing_model_file", f"A dense encoder is a directory with {MODEL} and {TOKENIZER}; no {path}."
                )
        self.form = form
        self.name = name or directory.resolve().name
        self.fingerprint = dense_fingerprint({path.name: record(path).sha256 for path in (model, tokenizer)}, form)
        self._batch_pieces = batch_pieces
        self._pieces = Pieces.load(tokenizer)
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(form.max_pieces)
        self._tokenizer.encode_special_tokens = True
        opened = self._tokenizer.encode(form.passage_prefix).ids
        # what stands before and after the pieces of a window
        self._before, self._after = opened[:-1], opened[-1:]
        try:
            self._session = onnxruntime.InferenceSession(
                str(model), session_options(threads), providers=list(providers)
            )
        except Exception as error:  # onnxruntime's errors share no base but Exception
            raise ConfigurationError("bad_model", f"{model} cannot be loaded by ONNX Runtime: {error}") from None
        self._inputs = [one.name for one in self._session.get_inputs()]
        unknown = set(self._inputs) - {"input_ids", "attention_mask", "token_type_ids"}
        if unknown or "input_ids" not in self._inputs:
            raise ConfigurationError("bad_model", f"{model} takes {self._inputs}, which no text encoder of ours does.")
        width = self._session.get_outputs()[0].shape[-1]
        self.width = width if isinstance(width, int) else 0

    def encode_queries(self, texts: Sequence[str]) -> Dense:
        """Raises InvalidInput (`not_finite_scores`) for NaN and infinity."""
        return self._texts([self.form.query_prefix + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Dense:
        """Raises InvalidInput (`not_finite_scores`) for NaN and infinity."""
        return self._texts([self.form.passage_prefix + text for text in texts])

    def windows(self, text: str, window: WindowSettings) -> list[Window]:
        """The windows of a text, every character in one. Raises InvalidInput (`bad_window`) for those that do not fit
        the model."""
        room = self.form.max_pieces - len(self._before) - len(self._after)
        if window.pieces > room:
            raise InvalidInput("bad_window", f"The dense encoder {self.name} takes windows of {room} pieces at most.")
        return self._pieces.windows(text, window.pieces, window.overlap)

    def encode_windows(self, windows: Sequence[Window]) -> Dense:
        """One vector a window, in the given order. Raises InvalidInput (`not_finite_scores`)."""
        return self._rows([[*self._before, *window.piece_ids, *self._after] for window in windows])

    def _texts(self, texts: Sequence[str]) -> Dense:
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        return self._rows([one.ids for one in self._tokenizer.encode_batch(clean)])

    def _rows(self, rows: Sequence[Sequence[int]]) -> Dense:
        batches = length_batches([len(row) for row in rows], self._batch_pieces)
        if not batches:
            return np.empty((0, self.width), dtype=np.float16)
        vectors = np.concatenate([self._run([rows[position] for position in batch]) for batch in batches])
        found = np.empty_like(vectors)
        found[[position for batch in batches for position in batch]] = vectors
        return found

    def _run(self, rows: Sequence[Sequence[int]]) -> Dense:
        """Unit vectors of rows of piece ids, special ones included."""
        ids = np.zeros((len(rows), max(len(row) for row in rows)), dtype=np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        fed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        output = self._session.run(None, {name: fed[name] for name in self._inputs})[0]
        if not np.isfinite(output).all():
            raise InvalidInput(
                "not_finite_scores",
                f"The dense encoder {self.name} gave NaN or infinity: its weights, or its runtime, are at fault.",
            )
        # a graph that pools by itself gives one vector a row
        return unit(output if output.ndim == 2 else pooled(output, mask, self.form.pooling))


def pooled(positions: NDArray[np.float32], mask: NDArray[np.int64], pooling: Pooling) -> NDArray[np.float32]:
    """[rows, width] out of [rows, pieces, width]; positions outside `mask` [rows, pieces] play no part."""
    if pooling is Pooling.first:
        return positions[:, 0]
    kept = mask[:, :, None].astype(np.float32)
    mean: NDArray[np.float32] = (positions * kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1.0)
    return mean


def unit(vectors: NDArray[np.float32]) -> Dense:
    """Vectors of length 1, float16; one of zeros stays as it is."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Dense = (vectors / np.maximum(length, 1e-12)).astype(np.float16)
    return scaled
