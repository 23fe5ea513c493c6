"""Reopening of an exported encoder: a checkpoint for training, made from the ONNX graph.

The checkpoint from which the encoder was exported is not needed. An int8 graph restores its weights to half a
quantisation step, so the checkpoint has the NDCG@10 of the int8 graph.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.numpy import save_file

from models.onnx_encoder import MODEL_FILE
from services.encoders.manifest import read_manifest, verify_file
from services.encoders.query_table import QUERY_WEIGHTS_FILE, TOKENIZER_FILE
from services.errors import ConfigurationError

FloatArray = NDArray[np.float32]
# As in training: relu turns a logit with this bias into an exact zero, and half precision can hold it.
_MASKED_LOGIT = -3e4
_BLOCK = {
    "attention_out": "attention.output.dense",
    "inner": "intermediate.dense",
    "outer": "output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "outer_norm": "output.LayerNorm",
}


class _Initializers:
    """Constants of a graph by name, as float32; quantised constants are multiplied by their scale."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def get(self, name: str) -> FloatArray:
        if name not in self._arrays:
            raise ConfigurationError(
                "checkpoint_unsupported", f"The graph has no weights named {name!r}: sparsewell did not export it."
            )
        return np.asarray(self._arrays[name], dtype=np.float32)

    def linear(self, name: str) -> FloatArray:
        """Return a weight as [out, in], as PyTorch stores it."""
        weight = self.get(f"{name}.weight")
        return np.ascontiguousarray((weight * self.get(f"{name}.scale") if f"{name}.scale" in self else weight).T)


def reopen_checkpoint(directory: Path, out: Path) -> Path:
    """Write config.json, model.safetensors (BertForMaskedLM), tokenizer.json and query_weights.json to `out`; return
    `out`.

    Raises ConfigurationError: the codes of `services.encoders.manifest`, and `checkpoint_unsupported` for architectures
    other than BERT and DistilBERT, and for graphs of other exporters.
    """
    manifest = read_manifest(directory)
    if manifest.architecture not in ("BertForMaskedLM", "DistilBertForMaskedLM"):
        raise ConfigurationError(
            "checkpoint_unsupported", f"{manifest.name} is a {manifest.architecture}; only BERT and DistilBERT reopen."
        )
    model = onnx.load(str(verify_file(directory, manifest, MODEL_FILE)))
    tensors, layers = _checkpoint_tensors(_Initializers(model))
    width = tensors["cls.predictions.transform.dense.bias"].size
    config = {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": width,
        "intermediate_size": int(tensors["bert.encoder.layer.0.intermediate.dense.bias"].size),
        "num_attention_heads": _count_heads(model),
        "num_hidden_layers": layers,
        "max_position_embeddings": int(tensors["bert.embeddings.position_embeddings.weight"].shape[0]),
        "layer_norm_eps": _norm_epsilon(model),
        "type_vocab_size": 2,
        "vocab_size": manifest.vocabulary,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in (TOKENIZER_FILE, QUERY_WEIGHTS_FILE):
        shutil.copyfile(verify_file(directory, manifest, name), out / name)
    return out


def _checkpoint_tensors(initializers: _Initializers) -> tuple[dict[str, FloatArray], int]:
    words = initializers.get("words")
    if "words.scale" in initializers:
        words = words * initializers.get("words.scale")[:, None]
    positions = initializers.get("positions")
    bias = np.maximum(initializers.get("head_bias"), _MASKED_LOGIT)
    tensors = {
        "bert.embeddings.word_embeddings.weight": words,
        # the export has added token type 0 to every position
        "bert.embeddings.position_embeddings.weight": positions,
        "bert.embeddings.token_type_embeddings.weight": np.zeros((2, positions.shape[1]), np.float32),
        "cls.predictions.transform.dense.weight": initializers.linear("transform"),
        "cls.predictions.transform.dense.bias": initializers.get("transform.bias"),
        "cls.predictions.bias": bias,
    }
    _copy_norm(tensors, initializers, "embedding_norm", "bert.embeddings.LayerNorm")
    _copy_norm(tensors, initializers, "transform_norm", "cls.predictions.transform.LayerNorm")
    layer = 0
    while f"layer{layer}.qkv.weight" in initializers:
        prefix = f"bert.encoder.layer.{layer}"
        weights = np.split(initializers.linear(f"layer{layer}.qkv"), 3)
        biases = np.split(initializers.get(f"layer{layer}.qkv.bias"), 3)
        for name, weight, part_bias in zip(("query", "key", "value"), weights, biases, strict=True):
            tensors[f"{prefix}.attention.self.{name}.weight"] = np.ascontiguousarray(weight)
            tensors[f"{prefix}.attention.self.{name}.bias"] = np.ascontiguousarray(part_bias)
        for name, target in _BLOCK.items():
            if name.endswith("norm"):
                _copy_norm(tensors, initializers, f"layer{layer}.{name}", f"{prefix}.{target}")
            else:
                tensors[f"{prefix}.{target}.weight"] = initializers.linear(f"layer{layer}.{name}")
                tensors[f"{prefix}.{target}.bias"] = initializers.get(f"layer{layer}.{name}.bias")
        layer += 1
    return tensors, layer


def _copy_norm(tensors: dict[str, FloatArray], initializers: _Initializers, name: str, target: str) -> None:
    tensors[f"{target}.weight"], tensors[f"{target}.bias"] = (
        initializers.get(f"{name}.scale"),
        initializers.get(f"{name}.bias"),
    )


def _find_attribute(model: onnx.ModelProto, kind: str, name: str) -> onnx.AttributeProto:
    for node in model.graph.node:
        if node.op_type == kind:
            for attribute in node.attribute:
                if attribute.name == name:
                    return attribute
    raise ConfigurationError(
        "checkpoint_unsupported", f"The graph has no {kind} with {name}: sparsewell did not export it."
    )


def _count_heads(model: onnx.ModelProto) -> int:
    return int(_find_attribute(model, "MultiHeadAttention", "num_heads").i)


def _norm_epsilon(model: onnx.ModelProto) -> float:
    return float(_find_attribute(model, "LayerNormalization", "epsilon").f)
