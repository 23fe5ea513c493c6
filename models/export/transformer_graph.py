"""ONNX graph of a transformer encoder, without a head, in float32, float16 or int8.

The graph is written node by node instead of traced (docs/decisions/0021), because two choices about it make it fast and
reproducible:

- Activations are quantised for each position, not for each batch as `DynamicQuantizeLinear` does: a document has the
  same vector in every batch.
- The word embedding is stored once, as int8 rows.

The fused operators are ONNX Runtime's (`com.microsoft`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.export.checkpoint import FloatArray, Transformer, TransformerLayer
from services.errors import ConfigurationError

CONTRIB_DOMAIN = "com.microsoft"
# int8 and int7 quantise linear weights, symmetric, with a scale for each output column (with 7 bits, dot products on
# CPUs without VNNI do not saturate, but lose precision). fp16 is for GPUs; on a CPU the runtime casts back to float32.
Precision = Literal["int8", "int7", "fp16", "fp32"]
WEIGHT_BITS: dict[Precision, int | None] = {"int8": 8, "int7": 7, "fp16": None, "fp32": None}


class TransformerGraph:
    """The graph of a transformer at one precision, to which a head is added.

    The methods add nodes to `g` and return the names of their outputs.
    """

    def __init__(self, transformer: Transformer, precision: Precision) -> None:
        self.c = transformer
        self.bits = WEIGHT_BITS[precision]
        self.fp16 = precision == "fp16"
        self.g = Graph()
        # The positions that the transformer reads.
        self.ids, self.mask = "input_ids", "attention_mask"

    def states(self) -> str:
        """Add the transformer; return its states [batch, length, width]."""
        x = self.embeddings()
        for index, layer in enumerate(self.c.layers):
            x = self.block(x, layer, f"layer{index}")
        return x

    def stored(self, weight: FloatArray) -> NDArray[np.floating[Any]]:
        """Return a weight in the type of the transformer's computation."""
        if not self.fp16:
            return weight
        if np.abs(weight).max(initial=0.0) > np.finfo(np.float16).max:
            raise ConfigurationError(
                "bad_precision", "This checkpoint has weights above 65,504, which fp16 cannot hold: export it as fp32."
            )
        return weight.astype(np.float16)

    def norm(self, x: str, pair: tuple[FloatArray, FloatArray], name: str) -> str:
        g = self.g
        scale, bias = (
            g.const(f"{name}.{part}", self.stored(array)) for part, array in zip(("scale", "bias"), pair, strict=True)
        )
        return g.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=self.c.epsilon)

    def to_uint8(self, x: str, axes: list[int]) -> tuple[str, str]:
        """Return `x` / scale as uint8 around 128, and the scale: one for each slice along the other axes."""
        g = self.g
        largest = g.op("ReduceMax", g.op("Abs", x), g.ints(*axes), keepdims=1)
        # The floor prevents a division by zero for an all-zero slice.
        scale = g.op(
            "Mul", g.op("Max", largest, g.const("tiny", np.float32(1e-12))), g.const("step", np.float32(1 / 127))
        )
        quantised = g.op("QuantizeLinear", g.op("Div", x, scale), g.const("unit", np.float32(1)), self.zero())
        return quantised, scale

    def zero(self) -> str:
        return self.g.const("zero_point", np.uint8(128))

    def linear(self, x: str, weight: FloatArray, bias: FloatArray, name: str) -> str:
        bias_name = self.g.const(f"{name}.bias", self.stored(bias))
        return self.g.op("Add", self.product(x, self.stored(weight), name), bias_name)

    def product(self, x: str, weight: NDArray[np.floating[Any]], name: str) -> str:
        """Return `x` @ `weight` [in, out]. At int8 and int7 both are quantised, `x` by slices along the last axis."""
        g = self.g
        tensors = [g.const(tensor, array) for tensor, array in product_tensors(weight, name, self.bits).items()]
        if self.bits is None:
            return g.op("MatMul", x, *tensors)
        rows, row_scale = self.to_uint8(x, [-1])
        values, scales = tensors
        product = g.op(
            "MatMulIntegerToFloat",
            rows,
            values,
            g.const("unit", np.float32(1)),
            scales,
            self.zero(),
            domain=CONTRIB_DOMAIN,
        )
        return g.op("Mul", product, row_scale)

    def scatter_positions(self, values: str, reduction: Literal["add", "max"]) -> str:
        """Return [batch, vocabulary]: the `values` [batch, length] of each piece's positions, reduced; 0 for others."""
        g = self.g
        batch = g.op("Shape", "input_ids", start=0, end=1)
        size = g.op("Concat", batch, g.ints(self.c.vocabulary), axis=0)
        nowhere = g.op("ConstantOfShape", size, value=numpy_helper.from_array(np.zeros(1, np.float32)))
        ids = g.op("Cast", "input_ids", to=TensorProto.INT64)
        return g.op("ScatterElements", nowhere, ids, values, axis=1, reduction=reduction)

    def embeddings(self) -> str:
        g, c = self.g, self.c
        if self.bits is None:
            words = g.op("Gather", g.const("words", self.stored(c.words)), self.ids)
        else:
            values, scales = quantise_weight(np.ascontiguousarray(c.words.T), self.bits)
            rows = g.op("Gather", g.const("words", values.T), self.ids)
            row_scales = g.op("Gather", g.const("words.scale", scales), self.ids)
            words = g.op("Mul", g.op("Cast", rows, to=TensorProto.FLOAT), g.op("Unsqueeze", row_scales, g.ints(-1)))
        length = g.op("Shape", self.ids, start=1, end=2)
        positions = g.op("Slice", g.const("positions", self.stored(c.positions)), g.ints(0), length, g.ints(0))
        return self.norm(g.op("Add", words, positions), c.embedding_norm, "embedding_norm")

    def block(self, x: str, layer: TransformerLayer, name: str) -> str:
        g = self.g
        qkv = self.linear(x, layer.qkv, layer.qkv_bias, f"{name}.qkv")
        query, key, value = g.ops("Split", qkv, outputs=3, axis=-1, num_outputs=3)
        mixed = g.op(
            "MultiHeadAttention", query, key, value, "", self.mask, domain=CONTRIB_DOMAIN, num_heads=self.c.heads
        )
        mixed = self.linear(mixed, layer.attention_out, layer.attention_out_bias, f"{name}.attention_out")
        x = self.norm(g.op("Add", x, mixed), layer.attention_norm, f"{name}.attention_norm")
        inner = g.op("Gelu", self.linear(x, layer.inner, layer.inner_bias, f"{name}.inner"))
        outer = self.linear(inner, layer.outer, layer.outer_bias, f"{name}.outer")
        return self.norm(g.op("Add", x, outer), layer.outer_norm, f"{name}.outer_norm")

    def finish(self, name: str, outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """Return the model with these outputs, and the inputs of `embeddings`. The same graph gives the same bytes."""
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.g.nodes,
            name,
            [
                value("input_ids", TensorProto.INT32, ["batch", "length"]),
                value("attention_mask", TensorProto.INT32, ["batch", "length"]),
            ],
            list(outputs),
            list(self.g.initializers.values()),
        )
        return helper.make_model(
            graph,
            producer_name="sparsewell",
            opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(CONTRIB_DOMAIN, 1)],
            ir_version=10,
        )

    def finish_sparse(
        self, name: str, weights: str, top_k: int, others: Sequence[onnx.ValueInfoProto] = ()
    ) -> onnx.ModelProto:
        """Return the model whose outputs are the `top_k` heaviest of `weights` [batch, vocabulary], and `others`."""
        g = self.g
        _, ids = g.ops("TopK", weights, g.ints(top_k), outputs=["weights", "ids64"], axis=-1, largest=1, sorted=1)
        g.op("Cast", ids, to=TensorProto.INT32, output="ids")
        value = helper.make_tensor_value_info
        return self.finish(
            name,
            [
                value("ids", TensorProto.INT32, ["batch", top_k]),
                value("weights", TensorProto.FLOAT, ["batch", top_k]),
                *others,
            ],
        )


class Graph:
    """Graph under construction: nodes and initializers. `op` returns the name of a node's output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def const(self, name: str, value: Any) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def ints(self, *values: int) -> str:
        return self.const("ints_" + "_".join(map(str, values)), np.array(values, dtype=np.int64))

    def op(self, kind: str, *inputs: str, domain: str = "", output: str = "", **attributes: Any) -> str:
        return self.ops(kind, *inputs, domain=domain, outputs=[output] if output else 1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int | list[str], domain: str = "", **attributes: Any) -> list[str]:
        name = f"{kind}_{len(self.nodes)}"
        names = outputs if isinstance(outputs, list) else [f"{name}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=name, domain=domain, **attributes))
        return names


def product_tensors(weight: NDArray[np.floating[Any]], name: str, bits: int | None) -> dict[str, NDArray[Any]]:
    """Return the constants of a product with `weight` [in, out], by name: floats, or integers of `bits` and scales."""
    if bits is None:
        return {f"{name}.weight": weight}
    values, scales = quantise_weight(weight, bits)
    return {f"{name}.weight": values, f"{name}.scale": scales}


def quantise_weight(weight: FloatArray, bits: int) -> tuple[NDArray[np.int8], FloatArray]:
    """Return the symmetric int8 form of `weight` [in, out] and its scales [out]: weight is about int8 * scale."""
    top = 2 ** (bits - 1) - 1
    scale = np.abs(weight).max(axis=0) / top
    scale[scale == 0] = 1.0
    return np.clip(np.rint(weight / scale), -top, top).astype(np.int8), scale.astype(np.float32)
