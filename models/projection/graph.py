"""ONNX graph of a projected encoder: one pass of a dense encoder gives the weights of pieces and the dense vector.

A piece's weight is the sum of two parts (docs/decisions/0242):

- Own pieces: BM25's saturated count of the piece in the window (Robertson and Zaragoza 2009, equation 3.13, without
  idf, which the query table has).
- Projected expansions: the dense vector, minus the mean of passages' vectors, times the piece's row of the dense query
  table, divided by the spread of that product over passages. The largest positive products are kept.

The graph returns all own pieces and the kept expansions, and the dense vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.export.checkpoint import FloatArray, Transformer
from models.export.transformer_graph import WEIGHT_BITS, Precision, TransformerGraph, product_tensors
from services.encoders.manifest import Pooling
from services.errors import ConfigurationError

K1, B = 1.2, 0.75
_PROJECTION = "projection"
_POSITIVE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True, eq=False)
class ProjectionHead:
    """Constants of the head.

    `table` [vocabulary, width] is the dense query table, `mean` [width] that of passages' vectors, `spread`
    [vocabulary] the standard deviation of each piece's product over passages. `query_weights` [vocabulary] are the
    encoder's, 0 for pieces that no document may weigh. `scale` multiplies the expansions. A window keeps `expansions`
    projected pieces, of those with a query weight of at least `least_query_weight`, and own pieces with a query weight
    of at least `least_own_weight`. `average_length` is BM25's, in pieces of a window. `prefix` holds the pieces of the
    dense encoder's prefix of passages: the transformer reads them before the window, and they count as no own pieces.
    """

    table: FloatArray
    mean: FloatArray
    spread: FloatArray
    query_weights: FloatArray
    pooling: Pooling
    average_length: float
    scale: float
    expansions: int
    least_query_weight: float
    least_own_weight: float
    prefix: tuple[int, ...] = ()


def allowed_pieces(query_weights: FloatArray, least: float) -> NDArray[np.bool_]:
    """Return a mask [vocabulary] of the pieces whose query weight is positive and at least `least`."""
    return query_weights >= max(least, _POSITIVE)


def make_projection(
    table: FloatArray, spread: FloatArray, query_weights: FloatArray, *, scale: float, least_query_weight: float
) -> FloatArray:
    """Return the matrix [width, vocabulary] that projects a centred vector into weights; see `ProjectionHead`."""
    factors = (scale * allowed_pieces(query_weights, least_query_weight) / spread).astype(np.float32)
    return np.ascontiguousarray((table * factors[:, None]).T)


def replace_projection(model: onnx.ModelProto, projection: FloatArray, precision: Precision) -> None:
    """Replace the projection of a model of `build_projected_graph` by another matrix [width, vocabulary].

    Raises ConfigurationError (`bad_model`) for a model without a projection of that shape and precision.
    """
    tensors = product_tensors(projection, _PROJECTION, WEIGHT_BITS[precision])
    for initializer in model.graph.initializer:
        if initializer.name not in tensors:
            continue
        old, new = numpy_helper.to_array(initializer), tensors[initializer.name]
        if (old.shape, old.dtype) == (new.shape, new.dtype):
            initializer.CopyFrom(numpy_helper.from_array(tensors.pop(initializer.name), initializer.name))
    if tensors:
        raise ConfigurationError(
            "bad_model", f"The model has no {' and no '.join(tensors)} of the right shape and type."
        )


def build_projected_graph(
    transformer: Transformer, head: ProjectionHead, *, precision: Precision, top_k: int
) -> onnx.ModelProto:
    """Build the encoder as one ONNX model.

    Inputs are `input_ids` and `attention_mask`, int32 [batch, length], with one special piece at each end. Outputs are
    `ids` int32 and `weights` float32, both [batch, top_k], by descending weight, then zeros; and `dense` float32
    [batch, width] of length 1. The same arguments give the same bytes.
    """
    return _ProjectedGraph(transformer, head, precision).build(top_k)


class _ProjectedGraph(TransformerGraph):
    """A transformer with a projection head."""

    def __init__(self, transformer: Transformer, head: ProjectionHead, precision: Precision) -> None:
        super().__init__(transformer, precision)
        self.head = head
        if head.prefix:
            self.ids = self.insert_prefix("input_ids", head.prefix)
            self.mask = self.insert_prefix("attention_mask", [1] * len(head.prefix))

    def insert_prefix(self, rows: str, values: Sequence[int]) -> str:
        """Return rows [batch, length] with these values after their first position."""
        g = self.g
        name = f"{rows}.prefix"
        size = g.op("Concat", g.op("Shape", rows, start=0, end=1), g.ints(len(values)), axis=0)
        prefix = g.op("Expand", g.const(name, np.array([values], dtype=np.int32)), size)
        first = g.op("Slice", rows, g.ints(0), g.ints(1), g.ints(1))
        rest = g.op("Slice", rows, g.ints(1), g.ints(np.iinfo(np.int64).max), g.ints(1))
        return g.op("Concat", first, prefix, rest, axis=1)

    def dense(self, states: str) -> str:
        """Return the vectors [batch, width]: states pooled and scaled to length 1."""
        g = self.g
        if self.fp16:
            states = g.op("Cast", states, to=TensorProto.FLOAT)
        if self.head.pooling is Pooling.first:
            pooled = g.op("Squeeze", g.op("Slice", states, g.ints(0), g.ints(1), g.ints(1)), g.ints(1))
        else:
            # The length of the sum does not matter, because the vector is scaled.
            real = g.op("Unsqueeze", g.op("Cast", self.mask, to=TensorProto.FLOAT), g.ints(-1))
            pooled = g.op("ReduceSum", g.op("Mul", states, real), g.ints(1), keepdims=0)
        length = g.op("ReduceL2", pooled, g.ints(-1), keepdims=1)
        return g.op("Div", pooled, g.op("Max", length, g.const("tiny", np.float32(1e-12))), output="dense")

    def expansions(self, dense: str) -> str:
        """Return [batch, vocabulary]: the projected weights, 0 for those that are not kept."""
        g, head = self.g, self.head
        weight = make_projection(
            head.table,
            head.spread,
            head.query_weights,
            scale=head.scale,
            least_query_weight=head.least_query_weight,
        )
        centred = g.op("Sub", dense, g.const("mean", head.mean))
        projected = self.product(centred, weight, _PROJECTION)
        positive = g.op("Relu", projected)
        kept = min(head.expansions, int(allowed_pieces(head.query_weights, head.least_query_weight).sum()))
        largest, _ = g.ops("TopK", positive, g.ints(kept), outputs=2, axis=-1, largest=1, sorted=1)
        smallest = g.op("Slice", largest, g.ints(kept - 1), g.ints(kept), g.ints(1))
        return g.op("Where", g.op("GreaterOrEqual", positive, smallest), positive, g.const("zero", np.float32(0)))

    def own_pieces(self) -> str:
        """Return [batch, vocabulary]: BM25's saturated counts of the window's pieces."""
        g, head = self.g, self.head
        real = g.op("Cast", "attention_mask", to=TensorProto.FLOAT)
        counts = self.scatter_positions(real, "add")
        allowed = allowed_pieces(head.query_weights, head.least_own_weight).astype(np.float32)
        counts = g.op("Mul", counts, g.const("allowed", allowed))
        # The two special pieces are not part of the window.
        length = g.op("Sub", g.op("ReduceSum", real, g.ints(1), keepdims=1), g.const("special", np.float32(2)))
        norm = g.op("Mul", length, g.const("length_factor", np.float32(K1 * B / head.average_length)))
        norm = g.op("Add", norm, g.const("length_base", np.float32(K1 * (1 - B))))
        raised = g.op("Mul", counts, g.const("saturation", np.float32(K1 + 1)))
        return g.op("Div", raised, g.op("Add", counts, norm))

    def build(self, top_k: int) -> onnx.ModelProto:
        g = self.g
        dense = self.dense(self.states())
        weights = g.op("Add", self.own_pieces(), self.expansions(dense))
        vector = helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["batch", self.c.width])
        return self.finish_sparse("projected_encoder", weights, top_k, [vector])
