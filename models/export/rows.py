"""Rows of piece ids through a graph that is not packaged yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from models.batching import length_batches
from models.onnx_encoder import session_options

RowVectors = tuple[NDArray[np.int32], NDArray[np.float32]]
RowEncoder = Callable[[Sequence[Sequence[int]]], RowVectors]


def pad(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Piece ids and attention mask, both int32 [rows, longest]."""
    length = max(len(row) for row in rows)
    input_ids = np.zeros((len(rows), length), dtype=np.int32)
    mask = np.zeros_like(input_ids)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return input_ids, mask


def graph_encoder(model: onnx.ModelProto, threads: int = 0) -> RowEncoder:
    """A function that runs the graph on rows of piece ids with their special pieces."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
    )

    def encode(rows: Sequence[Sequence[int]]) -> RowVectors:
        input_ids, mask = pad(rows)
        ids, weights = session.run(["ids", "weights"], {"input_ids": input_ids, "attention_mask": mask})
        return ids, weights

    return encode


def encode_rows(encode: RowEncoder, rows: Sequence[Sequence[int]], budget: int = 1024) -> RowVectors:
    """All rows, in batches by length; the result is in the order of the rows."""
    found_ids: list[NDArray[np.int32]] = [np.empty(0, np.int32)] * len(rows)
    found: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(rows)
    for batch in length_batches([len(row) for row in rows], budget):
        ids, weights = encode([rows[position] for position in batch])
        for row, position in enumerate(batch):
            found_ids[position], found[position] = ids[row], weights[row]
    return np.stack(found_ids), np.stack(found)
