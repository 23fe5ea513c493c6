"""Weights of a dense encoder's transformer, read from its ONNX graph.

Dense encoders are distributed as float32 ONNX graphs that PyTorch traced. A trace keeps the names of biases and norms,
and gives the matrices names like `onnx::MatMul_885`. A matrix is therefore found through the bias that is added to its
product. The number of heads is in no tensor, so it is found by comparison: the transformer that is rebuilt must give
the states of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from models.encoder import PieceTokeniser
from models.export.checkpoint import BERT_BLOCK, FloatArray, Transformer, TransformerLayer, read_layer
from models.export.transformer_graph import Precision, TransformerGraph
from models.onnx_encoder import CPU_PROVIDER, make_session_options, pad_rows
from services.errors import ConfigurationError

# BERT's. Others differ in the seventh digit of a state at most.
_EPSILON = 1e-12
_HEAD_WIDTHS = (32, 64, 128, 48, 96, 16, 8, 4)
_PROBE = "A wing in a slipstream, and the heat of its boundary layer."
# Cosine of the rebuilt states with the graph's; another number of heads gives less than .9.
_LEAST_COSINE = 0.9999


def read_dense_checkpoint(directory: Path) -> Transformer:
    """Read the transformer of DIRECTORY/model.onnx, a float32 or float16 graph of BERT's architecture.

    Raises ConfigurationError: `bad_model` for a file that is not an ONNX graph, and `checkpoint_unsupported` for
    another architecture, for quantised weights, and for states that differ from the graph's.
    """
    path = directory / "model.onnx"
    try:
        model = onnx.load(str(path))
    except Exception as error:  # onnx and protobuf have no common error class
        raise ConfigurationError("bad_model", f"{path} is not an ONNX graph: {error}") from None
    tensors = _Tensors(path, model.graph)
    words = tensors.get("embeddings.word_embeddings.weight")
    positions = tensors.get("embeddings.position_embeddings.weight")
    layers: list[TransformerLayer] = []
    while tensors.has(f"encoder.layer.{len(layers)}.output.dense.bias"):
        layers.append(read_layer(tensors, f"encoder.layer.{len(layers)}", BERT_BLOCK))
    if not layers:
        raise tensors.unsupported("it has no layers")
    types = tensors.get("embeddings.token_type_embeddings.weight")
    probe = _probe(directory)
    states = _run_graph(path, model, probe)
    for heads in _possible_heads(words.shape[1]):
        transformer = Transformer(
            "BertModel",
            heads,
            _EPSILON,
            words,
            positions + types[0],
            tensors.norm("embeddings.LayerNorm"),
            tuple(layers),
        )
        if _least_cosine(make_state_encoder(transformer, "fp32", 1)([probe])[0], states) >= _LEAST_COSINE:
            return transformer
    raise tensors.unsupported("its states cannot be reproduced from its weights")


def _possible_heads(width: int) -> Iterator[int]:
    return (width // size for size in _HEAD_WIDTHS if width % size == 0)


class _Tensors:
    """Float tensors of a graph by name, and the matrices by the name of the bias that is added to their product."""

    def __init__(self, path: Path, graph: onnx.GraphProto) -> None:
        self._path = path
        floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
        self._tensors = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type in floats}
        products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
        self._matrices: dict[str, str] = {}
        for node in graph.node:
            product = next((products[name] for name in node.input if name in products), None)
            bias = next((name for name in node.input if name.endswith(".bias") and name in self._tensors), None)
            matrix = product and next((name for name in product.input if name in self._tensors), None)
            if node.op_type == "Add" and bias and matrix:
                self._matrices[bias] = matrix

    def has(self, name: str) -> bool:
        return name in self._tensors

    def get(self, name: str) -> FloatArray:
        """Return a tensor as float32. Raises ConfigurationError (`checkpoint_unsupported`, `corrupt_checkpoint`)."""
        if name not in self._tensors:
            raise self.unsupported(f"it has no float tensor named {name!r}")
        tensor = np.ascontiguousarray(numpy_helper.to_array(self._tensors[name]), dtype=np.float32)
        if not np.isfinite(tensor).all():
            raise ConfigurationError("corrupt_checkpoint", f"{self._path}: {name} holds NaN or infinity.")
        return tensor

    def linear(self, name: str) -> tuple[FloatArray, FloatArray]:
        matrix = self._matrices.get(f"{name}.bias")
        if matrix is None:
            raise self.unsupported(f"no float matrix belongs to the bias {name}.bias")
        return self.get(matrix), self.get(f"{name}.bias")

    def norm(self, name: str) -> tuple[FloatArray, FloatArray]:
        return self.get(f"{name}.weight"), self.get(f"{name}.bias")

    def unsupported(self, reason: str) -> ConfigurationError:
        return ConfigurationError(
            "checkpoint_unsupported",
            f"{self._path} cannot be read as a float32 graph of BERT's architecture: {reason}. Quantised graphs cannot "
            "be read: take the encoder's float32 version.",
        )


def _probe(directory: Path) -> list[int]:
    pieces = PieceTokeniser.load(directory / "tokenizer.json")
    return [pieces.id_of("[CLS]"), *pieces.ids([_PROBE])[0], pieces.id_of("[SEP]")]


def _run_graph(path: Path, model: onnx.ModelProto, probe: Sequence[int]) -> FloatArray:
    """Return the states [length, width] of the probe, by the graph itself."""
    row = np.array([probe], dtype=np.int64)
    feed = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
    try:
        session = onnxruntime.InferenceSession(str(path), make_session_options(1), providers=[CPU_PROVIDER])
        output = session.run(None, {tensor.name: feed[tensor.name] for tensor in model.graph.input})[0]
    except Exception as error:  # onnxruntime's errors share no base but Exception
        raise ConfigurationError("bad_model", f"{path} cannot be run by ONNX Runtime: {error}") from None
    if output.ndim != 3:
        raise ConfigurationError(
            "checkpoint_unsupported", f"{path} returns one vector a text; its first output must be states of positions."
        )
    return np.asarray(output[0], dtype=np.float32)


def make_state_encoder(
    transformer: Transformer, precision: Precision, threads: int = 0
) -> Callable[[Sequence[Sequence[int]]], list[FloatArray]]:
    """Return a function from rows of piece ids, with special pieces, to the states [length, width] of each row."""
    graph = TransformerGraph(transformer, precision)
    graph.g.op("Identity", graph.states(), output="states")
    value = helper.make_tensor_value_info("states", TensorProto.FLOAT, ["batch", "length", transformer.width])
    session = onnxruntime.InferenceSession(
        graph.finish("states", [value]).SerializeToString(), make_session_options(threads), providers=[CPU_PROVIDER]
    )

    def encode(rows: Sequence[Sequence[int]]) -> list[FloatArray]:
        input_ids, mask = pad_rows(rows)
        states = session.run(None, {"input_ids": input_ids, "attention_mask": mask})[0]
        return [states[number, : len(row)] for number, row in enumerate(rows)]

    return encode


def _least_cosine(states: FloatArray, others: FloatArray) -> float:
    if states.shape != others.shape:
        return -1.0
    lengths = np.linalg.norm(states, axis=1) * np.linalg.norm(others, axis=1)
    return float(((states * others).sum(axis=1) / np.maximum(lengths, 1e-12)).min())
