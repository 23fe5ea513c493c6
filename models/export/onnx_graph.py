"""ONNX graph of an encoder: transformer, head, pooling, log1p and top k, in float32, float16 or int8.

The graph is written node by node instead of traced (docs/decisions/0021), because three choices about the graph make it
fast and reproducible:

- The maximum over positions precedes bias, relu and log1p (all monotone), in int8 on the integer accumulators: the
  [batch, length, vocabulary] tensor is written once and read once. Padded positions get the hidden state of the first
  position, so they do not change the maximum and the large tensor needs no mask.
- Activations are quantised for each position (in the head, for each document), not for each batch as
  `DynamicQuantizeLinear` does: a document has the same vector in every batch.
- The tied word embedding is stored once, as int8 rows; the head reads it through a transposition that the runtime folds
  at load.

The fused operators are ONNX Runtime's (`com.microsoft`). `make_graph_encoder` runs a graph that is not packaged yet;
`TorchReference` is the same encoder in PyTorch, from transformers' model class, to compare the graph with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from transformers import AutoModelForMaskedLM

from models.export.checkpoint import Checkpoint, FloatArray, TransformerLayer
from models.onnx_encoder import batch_by_length, make_session_options
from models.training.recipe import Activation
from services.errors import ConfigurationError

CONTRIB_DOMAIN = "com.microsoft"
# Far below any logit, so relu gives an exact zero.
MASKED_LOGIT = -1e30
# int8 and int7 quantise linear weights, symmetric, with a scale for each output column (with 7 bits, dot products on
# CPUs without VNNI do not saturate, but lose precision). fp16 is for GPUs; on a CPU the runtime casts back to float32.
Precision = Literal["int8", "int7", "fp16", "fp32"]
_BITS: dict[Precision, int | None] = {"int8": 8, "int7": 7, "fp16": None, "fp32": None}
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
    return _Builder(checkpoint, precision).build(min(top_k, checkpoint.vocabulary), excluded, activation, expansion)


class _Builder:
    """Builder of a checkpoint's graph at one precision."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision) -> None:
        self.c = checkpoint
        self.bits = _BITS[precision]
        self.fp16 = precision == "fp16"
        self.g = _Graph()

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
        g = self.g
        bias_name = g.const(f"{name}.bias", self.stored(bias))
        if self.bits is None:
            return g.op("Add", g.op("MatMul", x, g.const(f"{name}.weight", self.stored(weight))), bias_name)
        values, scales = quantise_weight(weight, self.bits)
        rows, row_scale = self.to_uint8(x, [-1])
        product = g.op(
            "MatMulIntegerToFloat",
            rows,
            g.const(f"{name}.weight", values),
            g.const("unit", np.float32(1)),
            g.const(f"{name}.scale", scales),
            self.zero(),
            domain=CONTRIB_DOMAIN,
        )
        return g.op("Add", g.op("Mul", product, row_scale), bias_name)

    def embeddings(self) -> str:
        g, c = self.g, self.c
        if self.bits is None:
            words = g.op("Gather", g.const("words", self.stored(c.words)), "input_ids")
        else:
            values, scales = quantise_weight(np.ascontiguousarray(c.words.T), self.bits)
            rows = g.op("Gather", g.const("words", values.T), "input_ids")
            row_scales = g.op("Gather", g.const("words.scale", scales), "input_ids")
            words = g.op("Mul", g.op("Cast", rows, to=TensorProto.FLOAT), g.op("Unsqueeze", row_scales, g.ints(-1)))
        length = g.op("Shape", "input_ids", start=1, end=2)
        positions = g.op("Slice", g.const("positions", self.stored(c.positions)), g.ints(0), length, g.ints(0))
        return self.norm(g.op("Add", words, positions), c.embedding_norm, "embedding_norm")

    def block(self, x: str, layer: TransformerLayer, name: str) -> str:
        g = self.g
        qkv = self.linear(x, layer.qkv, layer.qkv_bias, f"{name}.qkv")
        query, key, value = g.ops("Split", qkv, outputs=3, axis=-1, num_outputs=3)
        mixed = g.op(
            "MultiHeadAttention", query, key, value, "", "attention_mask", domain=CONTRIB_DOMAIN, num_heads=self.c.heads
        )
        mixed = self.linear(mixed, layer.attention_out, layer.attention_out_bias, f"{name}.attention_out")
        x = self.norm(g.op("Add", x, mixed), layer.attention_norm, f"{name}.attention_norm")
        inner = g.op("Gelu", self.linear(x, layer.inner, layer.inner_bias, f"{name}.inner"))
        outer = self.linear(inner, layer.outer, layer.outer_bias, f"{name}.outer")
        return self.norm(g.op("Add", x, outer), layer.outer_norm, f"{name}.outer_norm")

    def pooled_logits(self, x: str, excluded: Collection[int]) -> str:
        """Return [batch, vocabulary]: the largest logit of each piece over positions that are not padding."""
        g, c = self.g, self.c
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

    def present(self) -> str:
        """Return [batch, vocabulary]: 1 for each piece of the document, 0 for all others."""
        g = self.g
        batch = g.op("Shape", "input_ids", start=0, end=1)
        size = g.op("Concat", batch, g.ints(self.c.vocabulary), axis=0)
        nowhere = g.op("ConstantOfShape", size, value=numpy_helper.from_array(np.zeros(1, np.float32)))
        real = g.op("Cast", "attention_mask", to=TensorProto.FLOAT)
        ids = g.op("Cast", "input_ids", to=TensorProto.INT64)
        return g.op("ScatterElements", nowhere, ids, real, axis=1, reduction="max")

    def build(self, top_k: int, excluded: Collection[int], activation: Activation, expansion: bool) -> onnx.ModelProto:
        g = self.g
        x = self.embeddings()
        for index, layer in enumerate(self.c.layers):
            x = self.block(x, layer, f"layer{index}")
        weights = self.activated(self.pooled_logits(x, excluded), activation)
        if not expansion:
            weights = g.op("Mul", weights, self.present())
        _, ids = g.ops("TopK", weights, g.ints(top_k), outputs=["weights", "ids64"], axis=-1, largest=1, sorted=1)
        g.op("Cast", ids, to=TensorProto.INT32, output="ids")
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            g.nodes,
            "sparse_encoder",
            [
                value("input_ids", TensorProto.INT32, ["batch", "length"]),
                value("attention_mask", TensorProto.INT32, ["batch", "length"]),
            ],
            [
                value("ids", TensorProto.INT32, ["batch", top_k]),
                value("weights", TensorProto.FLOAT, ["batch", top_k]),
            ],
            list(g.initializers.values()),
        )
        return helper.make_model(
            graph,
            producer_name="sparsewell",
            opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(CONTRIB_DOMAIN, 1)],
            ir_version=10,
        )


class _Graph:
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


def quantise_weight(weight: FloatArray, bits: int) -> tuple[NDArray[np.int8], FloatArray]:
    """Return the symmetric int8 form of `weight` [in, out] and its scales [out]: weight is about int8 * scale."""
    top = 2 ** (bits - 1) - 1
    scale = np.abs(weight).max(axis=0) / top
    scale[scale == 0] = 1.0
    return np.clip(np.rint(weight / scale), -top, top).astype(np.int8), scale.astype(np.float32)


def pad_rows(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return piece ids and attention mask, both int32 [rows, longest]."""
    length = max(len(row) for row in rows)
    input_ids = np.zeros((len(rows), length), dtype=np.int32)
    mask = np.zeros_like(input_ids)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return input_ids, mask


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


class TorchReference:
    """Reference encoder in PyTorch: activation of the largest logit over positions, top k; float32 on the CPU.

    The activation is log(1 + relu) or log(1 + log(1 + relu)). Excluded pieces weigh zero. Without `expansion`, pieces
    that are not in the text weigh zero too.
    """

    def __init__(
        self,
        directory: Path,
        *,
        top_k: int,
        excluded: Collection[int],
        activation: Activation = "log1p_relu",
        expansion: bool = True,
    ) -> None:
        self._model = AutoModelForMaskedLM.from_pretrained(
            str(directory), dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        ).eval()
        self._top_k = top_k
        self._excluded = sorted(excluded)
        self._activation = activation
        self._expansion = expansion

    def encode(self, rows: Sequence[Sequence[int]]) -> RowVectors:
        """Encode rows of piece ids with their special pieces: ids int32 and weights float32, [rows, k], descending."""
        input_ids, mask = pad_rows(rows)
        with torch.inference_mode():
            real = torch.from_numpy(mask)
            ids = torch.from_numpy(input_ids)
            logits = self._model(input_ids=ids, attention_mask=real).logits
            largest = logits.masked_fill(real[:, :, None] == 0, float("-inf")).amax(1)
            weights = torch.log1p(torch.relu(largest))
            if self._activation == "log1p_log1p_relu":
                weights = torch.log1p(weights)
            weights[:, self._excluded] = 0.0
            if not self._expansion:
                weights *= torch.zeros_like(weights).scatter_reduce_(1, ids.long(), real.float(), "amax")
            values, best = weights.topk(self._top_k, dim=1)
        return best.numpy().astype(np.int32), values.numpy()
