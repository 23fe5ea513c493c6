"""Checkpoint of a masked-language model as numpy arrays, for the exporter.

`load_checkpoint` reads BertForMaskedLM and DistilBertForMaskedLM, safetensors only. Other families, other activations
and untied heads are refused, because their export would give wrong weights without an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from services.errors import ConfigurationError

FloatArray = NDArray[np.float32]
# Names of the same tensors in the two families, relative to a block.
BERT_BLOCK = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "inner": "intermediate.dense",
    "outer": "output.dense",
    "outer_norm": "output.LayerNorm",
}
_DISTILBERT_BLOCK = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attention_out": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "inner": "ffn.lin1",
    "outer": "ffn.lin2",
    "outer_norm": "output_layer_norm",
}


@dataclass(frozen=True)
class TransformerLayer:
    """Transformer block. Weights are [in, out], for `x @ weight`; biases and norms are [out]."""

    qkv: FloatArray
    qkv_bias: FloatArray
    attention_out: FloatArray
    attention_out_bias: FloatArray
    attention_norm: tuple[FloatArray, FloatArray]
    inner: FloatArray
    inner_bias: FloatArray
    outer: FloatArray
    outer_bias: FloatArray
    outer_norm: tuple[FloatArray, FloatArray]


@dataclass(frozen=True)
class Transformer:
    """Weights of a transformer encoder without a head.

    `words` is [vocabulary, width]; `positions` is [max_pieces, width] and includes the embedding of token type 0, which
    every position gets.
    """

    architecture: str
    heads: int
    epsilon: float
    words: FloatArray
    positions: FloatArray
    embedding_norm: tuple[FloatArray, FloatArray]
    layers: tuple[TransformerLayer, ...]

    @property
    def width(self) -> int:
        return int(self.words.shape[1])

    @property
    def vocabulary(self) -> int:
        return int(self.words.shape[0])

    @property
    def max_pieces(self) -> int:
        return int(self.positions.shape[0])


@dataclass(frozen=True)
class Checkpoint(Transformer):
    """Weights of an encoder with a masked-language head whose output matrix is the word embedding (tied)."""

    transform: FloatArray
    transform_bias: FloatArray
    transform_norm: tuple[FloatArray, FloatArray]
    head_bias: FloatArray


def load_checkpoint(directory: Path) -> Checkpoint:
    """Read `config.json` and `model.safetensors` of `directory`.

    Raises ConfigurationError: `corrupt_checkpoint`, and `checkpoint_unsupported` for another family, an activation
    other than the exact gelu, an untied head or a missing tensor.
    """
    config = _read_config(directory / "config.json")
    tensors = _Tensors(directory / "model.safetensors")
    _require_value(config, "tie_word_embeddings", (True,))
    _require_value(config, "model_type", ("bert", "distilbert"))
    if config["model_type"] == "bert":
        _require_value(config, "hidden_act", ("gelu",))
        _require_value(config, "position_embedding_type", ("absolute",))
        positions = tensors.get("bert.embeddings.position_embeddings.weight")
        return Checkpoint(
            architecture="BertForMaskedLM",
            heads=_read_integer(config, "num_attention_heads"),
            epsilon=config.get("layer_norm_eps", 1e-12),
            words=tensors.get("bert.embeddings.word_embeddings.weight"),
            positions=positions + tensors.get("bert.embeddings.token_type_embeddings.weight")[0],
            embedding_norm=tensors.norm("bert.embeddings.LayerNorm"),
            layers=tuple(
                read_layer(tensors, f"bert.encoder.layer.{index}", BERT_BLOCK)
                for index in range(_read_integer(config, "num_hidden_layers"))
            ),
            transform=tensors.linear("cls.predictions.transform.dense")[0],
            transform_bias=tensors.linear("cls.predictions.transform.dense")[1],
            transform_norm=tensors.norm("cls.predictions.transform.LayerNorm"),
            head_bias=tensors.get("cls.predictions.bias"),
        )
    _require_value(config, "activation", ("gelu",))
    return Checkpoint(
        architecture="DistilBertForMaskedLM",
        heads=_read_integer(config, "n_heads"),
        epsilon=1e-12,
        words=tensors.get("distilbert.embeddings.word_embeddings.weight"),
        positions=tensors.get("distilbert.embeddings.position_embeddings.weight"),
        embedding_norm=tensors.norm("distilbert.embeddings.LayerNorm"),
        layers=tuple(
            read_layer(tensors, f"distilbert.transformer.layer.{index}", _DISTILBERT_BLOCK)
            for index in range(_read_integer(config, "n_layers"))
        ),
        transform=tensors.linear("vocab_transform")[0],
        transform_bias=tensors.linear("vocab_transform")[1],
        transform_norm=tensors.norm("vocab_layer_norm"),
        head_bias=tensors.get("vocab_projector.bias"),
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError("corrupt_checkpoint", f"{path} cannot be read as JSON ({error}).") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise ConfigurationError("checkpoint_unsupported", f"{path} names no model_type.")
    return config


def _read_integer(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise ConfigurationError("checkpoint_unsupported", f"config.json has {key} = {value!r}, which is not a count.")
    return value


def _require_value(config: dict[str, Any], key: str, supported: tuple[Any, ...]) -> None:
    if config.get(key, supported[0]) not in supported:
        allowed = " or ".join(str(value) for value in supported)
        raise ConfigurationError(
            "checkpoint_unsupported", f"config.json has {key} = {config[key]!r}; the exporter supports only {allowed}."
        )


class NamedTensors(Protocol):
    """Tensors of a checkpoint by name, as float32."""

    def linear(self, name: str) -> tuple[FloatArray, FloatArray]:
        """Return weight [in, out] and bias [out]."""
        ...

    def norm(self, name: str) -> tuple[FloatArray, FloatArray]:
        """Return scale and bias."""
        ...


def read_layer(tensors: NamedTensors, prefix: str, names: Mapping[str, str]) -> TransformerLayer:
    """Read a block. `names` has the names of its tensors, relative to `prefix`."""
    parts = [tensors.linear(f"{prefix}.{names[part]}") for part in ("query", "key", "value")]
    attention_out, attention_out_bias = tensors.linear(f"{prefix}.{names['attention_out']}")
    inner, inner_bias = tensors.linear(f"{prefix}.{names['inner']}")
    outer, outer_bias = tensors.linear(f"{prefix}.{names['outer']}")
    return TransformerLayer(
        qkv=np.concatenate([weight for weight, _ in parts], axis=1),
        qkv_bias=np.concatenate([bias for _, bias in parts]),
        attention_out=attention_out,
        attention_out_bias=attention_out_bias,
        attention_norm=tensors.norm(f"{prefix}.{names['attention_norm']}"),
        inner=inner,
        inner_bias=inner_bias,
        outer=outer,
        outer_bias=outer_bias,
        outer_norm=tensors.norm(f"{prefix}.{names['outer_norm']}"),
    )


class _Tensors:
    """Tensors of a file as float32, by name; linear weights are transposed to [in, out]."""

    def __init__(self, path: Path) -> None:
        try:
            self._tensors = load_file(path)
        except Exception as error:  # an error of safetensors, or of numpy for a type that it lacks
            raise ConfigurationError(
                "corrupt_checkpoint",
                f"{path} cannot be read ({error!r}): fetch or save it again, as float32 or float16.",
            ) from None

    def get(self, name: str) -> FloatArray:
        if name not in self._tensors:
            raise ConfigurationError("checkpoint_unsupported", f"model.safetensors has no tensor named {name!r}.")
        tensor = np.ascontiguousarray(self._tensors[name], dtype=np.float32)
        if not np.isfinite(tensor).all():
            raise ConfigurationError(
                "corrupt_checkpoint",
                f"model.safetensors: {name} holds NaN or infinity; go back to an earlier checkpoint.",
            )
        return tensor

    def linear(self, name: str) -> tuple[FloatArray, FloatArray]:
        return np.ascontiguousarray(self.get(f"{name}.weight").T), self.get(f"{name}.bias")

    def norm(self, name: str) -> tuple[FloatArray, FloatArray]:
        return self.get(f"{name}.weight"), self.get(f"{name}.bias")
