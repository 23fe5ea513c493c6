"""Reads a decoder-only language model: a directory of safetensors, a GGUF file, or a name on a hub.

Mistral's architecture; Llama's weights have the same names and the same arithmetic, so they load into it. Nothing is
unpickled and no code of a repository is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM
from transformers.utils import cached_file

from services.errors import ConfigurationError
from services.manifest import as_path

# What a Llama may have and a Mistral has not.
_ONLY_IN_LLAMA = ("attention_bias", "mlp_bias")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`model` is a MistralForCausalLM in evaluation mode, `tokenizer` its own, `source` where it came from."""

    model: Any
    tokenizer: Tokenizer
    source: str

    @property
    def positions(self) -> int:
        """The longest input of which a last position still sees the first."""
        config = self.model.config
        return int(min(config.max_position_embeddings, config.sliding_window or config.max_position_embeddings))


def load_checkpoint(source: str, *, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """The model and tokeniser of a directory, of a .gguf file, or of a name `owner/model` (needs a network).

    Raises ConfigurationError: `bad_checkpoint` for what is missing, unreadable or only there as a pickle,
    `checkpoint_unsupported` for another architecture.
    """
    path = as_path(source)
    if path.suffix == ".gguf":
        return _from_gguf(path, dtype)
    if not path.is_dir() and source.count("/") != 1:
        raise ConfigurationError(
            "bad_checkpoint",
            f"There is no checkpoint {source!r}: give a directory, a .gguf file or a name owner/model.",
        )
    refuse_adapters(path, "bad_checkpoint")
    name = str(path) if path.is_dir() else source
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": path.is_dir()}
    try:
        config = mistral_config(AutoConfig.from_pretrained(name, **options))
        model, report = MistralForCausalLM.from_pretrained(
            name, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
        # The file itself: a tokeniser's class in transformers may replace parts of it.
        tokenizer = Tokenizer.from_file(cached_file(name, "tokenizer.json", local_files_only=path.is_dir()))
    except ConfigurationError:
        raise
    except Exception as error:  # transformers, safetensors and tokenizers have no common base
        raise _unreadable(source, error) from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise ConfigurationError(
            "bad_checkpoint", f"{source} lacks {len(missing)} tensors of its model, {missing[0]} among them."
        )
    return Checkpoint(model.eval(), tokenizer, source)


def refuse_adapters(directory: Path, code: str) -> None:
    """transformers adds adapters that lie beside a model to its weights, whatever checksums and manifest say of those.

    Raises ConfigurationError with `code`.
    """
    path = directory / "adapter_config.json"
    if path.exists():
        raise ConfigurationError(
            code, f"{path}: adapters beside a model would change its weights unseen: merge them, or remove their files."
        )


def _from_gguf(path: Path, dtype: torch.dtype) -> Checkpoint:
    if not path.is_file():
        raise ConfigurationError("bad_checkpoint", f"{path} is missing.")
    options: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
    try:
        original = AutoModelForCausalLM.from_pretrained(str(path.parent), dtype=dtype, **options)
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **options).backend_tokenizer
    except Exception as error:  # as above; a missing package gguf is an ImportError
        raise _unreadable(str(path), error) from None
    config = mistral_config(original.config)
    with torch.device("meta"):
        model = MistralForCausalLM(config)
    # (buffers that are not saved, the frequencies of the positions, have no values on "meta")
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.load_state_dict(original.state_dict(), assign=True)
    model.tie_weights()
    return Checkpoint(model.eval(), tokenizer, str(path))


def mistral_config(config: Any) -> MistralConfig:
    """A configuration as Mistral's. Raises ConfigurationError (`checkpoint_unsupported`)."""
    if isinstance(config, MistralConfig):
        return config
    strange = [name for name in _ONLY_IN_LLAMA if getattr(config, name, False)]
    if config.model_type != "llama" or strange:
        raise ConfigurationError(
            "checkpoint_unsupported",
            f"The model is a {config.model_type}{' with ' + ', '.join(strange) if strange else ''}; decoders of "
            "Mistral's architecture (and Llama's without biases) can be used.",
        )
    fields = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_act",
        "max_position_embeddings",
        "initializer_range",
        "rms_norm_eps",
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
        "tie_word_embeddings",
        "rope_parameters",
    )
    return MistralConfig(**{name: getattr(config, name) for name in fields}, sliding_window=None)


def _unreadable(source: str, error: Exception) -> ConfigurationError:
    first = str(error).strip().split("\n", maxsplit=1)[0]
    return ConfigurationError(
        "bad_checkpoint",
        f"{source} cannot be used: {first} (wanted: config.json, tokenizer.json and model.safetensors; pickles are "
        "refused, and a name needs a network).",
    )
