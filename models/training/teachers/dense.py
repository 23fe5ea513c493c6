"""Dense teachers on ONNX Runtime: a directory with model.onnx and tokenizer.json, and how its vectors are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.batching import length_batches
from models.onnx_encoder import session_options
from models.training.pairs import texts_fingerprint
from models.training.vectors import Dense
from services.errors import ConfigurationError, InvalidInput
from services.manifest import record

MODEL, TOKENIZER = "model.onnx", "tokenizer.json"
# Padded pieces of one run of the model. The widest tensors are attention's, heads x pieces squared x 4 bytes a row.
BATCH_PIECES = 4096


class Pooling(StrEnum):
    """Which positions a text's vector comes from."""

    first = "first"
    mean = "mean"


@dataclass(frozen=True, slots=True)
class DenseForm:
    """How a model wants its texts and what becomes of its positions. Longer texts are cut at `max_pieces`, the
    special ones included. Vectors have length 1, so that a dot product is a cosine."""

    pooling: Pooling = Pooling.mean
    query_prefix: str = ""
    passage_prefix: str = ""
    max_pieces: int = 256

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> DenseForm:
        """From the members of a JSON object; those that are absent have their defaults."""
        return cls(**{**members, "pooling": Pooling(members.get("pooling", Pooling.mean))})

    def cut(self, max_pieces: int | None) -> DenseForm:
        """The same with another limit, if one is given."""
        return self if max_pieces is None else replace(self, max_pieces=max_pieces)


class DenseTeacher:
    """See `models.training.vectors.Teacher`. Vectors are float16 [n, d]; `name` is that of the directory unless given.

    `threads` is the number of threads of one call (0: all cores), `providers` are ONNX Runtime's, in order.
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
                    "missing_model_file", f"A dense teacher is a directory with {MODEL} and {TOKENIZER}; no {path}."
                )
        if form.max_pieces < 3:
            raise ConfigurationError("bad_teacher", f"A dense teacher reads 3 pieces or more, not {form.max_pieces}.")
        self.form = form
        self.name = name or directory.resolve().name
        self.fingerprint = texts_fingerprint([record(model).sha256, record(tokenizer).sha256, repr(form)])
        self._batch_pieces = batch_pieces
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # tokenizers raises bare Exception
            raise ConfigurationError("bad_tokenizer", f"{tokenizer} is no usable tokenizer.json: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(form.max_pieces)
        self._tokenizer.encode_special_tokens = True
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

    def encode_queries(self, texts: Sequence[str]) -> Dense:
        """Raises InvalidInput (`not_finite_scores`) for NaN and infinity."""
        return self._encode([self.form.query_prefix + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Dense:
        """Raises InvalidInput (`not_finite_scores`) for NaN and infinity."""
        return self._encode([self.form.passage_prefix + text for text in texts])

    def _encode(self, texts: Sequence[str]) -> Dense:
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        rows = [one.ids for one in self._tokenizer.encode_batch(clean)]
        batches = length_batches([len(row) for row in rows], self._batch_pieces)
        if not batches:
            return np.empty((0, self._width()), dtype=np.float16)
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
                f"The teacher {self.name} gave NaN or infinity: its weights, or its runtime, are at fault.",
            )
        # a graph that pools by itself gives one vector a row
        return unit(output if output.ndim == 2 else pooled(output, mask, self.form.pooling))

    def _width(self) -> int:
        width = self._session.get_outputs()[0].shape[-1]
        return width if isinstance(width, int) else 0


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
