"""ONNX graph of a sparse encoder: transformer, head, pooling, log1p and top k, in float32, float16 or int8.

The transformer is `models.export.transformer_graph`'s. Two choices about the head make it fast (docs/decisions/0021):

- The maximum over positions precedes bias, relu and log1p (all monotone), in int8 on the integer accumulators: the
  [batch, length, vocabulary] tensor is written once and read once. Padded positions get the hidden state of the first
  position, so they do not change the maximum and the large tensor needs no mask.
- The head reads the tied word embedding through a transposition that the runtime folds at load.

`make_graph_encoder` runs a graph that is not packaged yet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto

from models.export.checkpoint import Checkpoint
from models.export.transformer_graph import Precision, TransformerGraph
from models.onnx_encoder import batch_by_length, make_session_options, pad_rows
from models.training.recipe import Activation

# Far below any logit, so relu gives an exact zero.
MASKED_LOGIT = -1e30
RowVectors = tuple[NDArray[np.int32], NDArray[np.float32]]
RowEncoder = Callable[[Sequence[Sequence[int]]], RowVectors]


def build_graph(
    checkpoint: Checkpoint,
    *,
    precision: Precision,
    top_k: int,
    excluded: Collection[int],
    activation: Activation = "log1p_relu",
    expansion: bool = True,
) -> onnx.ModelProto:
    """Build the encoder as one ONNX model.

    Inputs are `input_ids` and `attention_mask`, int32 [batch, length], of at most `checkpoint.max_pieces` positions.
    Outputs are `ids` int32 and `weights` float32, both [batch, top_k], by descending weight; entries after the positive
    weights have weight zero. Pieces in `excluded` always weigh zero; without `expansion`, so do pieces that are not in
    the text. The same arguments give the same bytes.

    With `fp16` the transformer and the product of the head are in half precision; the steps after the maximum, and the
    outputs, are float32. Raises ConfigurationError (`bad_precision`) for weights that fp16 cannot hold.
    """
    return _EncoderGraph(checkpoint, precision).build(
        min(top_k, checkpoint.vocabulary), excluded, activation, expansion
    )


class _EncoderGraph(TransformerGraph):
    """A transformer with the masked-language head of its checkpoint."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision) -> None:
        super().__init__(checkpoint, precision)
        self.checkpoint = checkpoint

    def pooled_logits(self, x: str, excluded: Collection[int]) -> str:
        """Return [batch, vocabulary]: the largest logit of each piece over positions that are not padding."""
        g, c = self.g, self.checkpoint
        y = self.linear(x, c.transform, c.transform_bias, "transform")
        y = self.norm(g.op("Gelu", y), c.transform_norm, "transform_norm")
        first = g.op("Slice", y, g.ints(0), g.ints(1), g.ints(1))
        real = g.op("Unsqueeze", g.op("Cast", "attention_mask", to=TensorProto.BOOL), g.ints(-1))
        y = g.op("Where", real, y, first)
        words = g.op("Transpose", "words", perm=[1, 0])
        if self.bits is None:
            largest = g.op("ReduceMax", g.op("MatMul", y, words), g.ints(1), keepdims=0)
            if self.fp16:
                # the rest of the work is small, and half precision cannot hold the bias of excluded pieces
                largest = g.op("Cast", largest, to=TensorProto.FLOAT)
        else:
            values, scale = self.to_uint8(y, [1, 2])
            accumulated = g.op("MatMulInteger", values, words, self.zero())
            largest = g.op("Cast", g.op("ReduceMax", accumulated, g.ints(1), keepdims=0), to=TensorProto.FLOAT)
            scales = g.op("Mul", g.op("Squeeze", scale, g.ints(-1)), "words.scale")
            largest = g.op("Mul", largest, scales)
        bias = c.head_bias.copy()
        bias[sorted(excluded)] = MASKED_LOGIT
        return g.op("Add", largest, g.const("head_bias", bias))

    def activated(self, logits: str, activation: Activation) -> str:
        g = self.g
        weights = g.op("Relu", logits)
        for _ in range(2 if activation == "log1p_log1p_relu" else 1):
            weights = g.op("Log", g.op("Add", weights, g.const("unit", np.float32(1))))
        return weights

    def occurring_pieces(self) -> str:
        """Return [batch, vocabulary]: 1 for each piece of the document, 0 for all others."""
        return self.scatter_positions(self.g.op("Cast", "attention_mask", to=TensorProto.FLOAT), "max")

    def build(self, top_k: int, excluded: Collection[int], activation: Activation, expansion: bool) -> onnx.ModelProto:
        g = self.g
        weights = self.activated(self.pooled_logits(self.states(), excluded), activation)
        if not expansion:
            weights = g.op("Mul", weights, self.occurring_pieces())
        return self.finish_sparse("sparse_encoder", weights, top_k)


def make_graph_encoder(model: onnx.ModelProto, threads: int = 0) -> RowEncoder:
    """Return a function that runs the graph on rows of piece ids with their special pieces."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), make_session_options(threads), providers=["CPUExecutionProvider"]
    )

    def encode(rows: Sequence[Sequence[int]]) -> RowVectors:
        input_ids, mask = pad_rows(rows)
        ids, weights = session.run(["ids", "weights"], {"input_ids": input_ids, "attention_mask": mask})
        return ids, weights

    return encode


def encode_rows(encode: RowEncoder, rows: Sequence[Sequence[int]], budget: int = 1024) -> RowVectors:
    """Encode all rows, in batches by length; the result has the order of the rows."""
    all_ids: list[NDArray[np.int32]] = [np.empty(0, np.int32)] * len(rows)
    all_weights: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(rows)
    for batch in batch_by_length([len(row) for row in rows], budget):
        ids, weights = encode([rows[position] for position in batch])
        for row, position in enumerate(batch):
            all_ids[position], all_weights[position] = ids[row], weights[row]
    return np.stack(all_ids), np.stack(all_weights)
