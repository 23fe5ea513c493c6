"""Reads a generator of transformers: a decoder or a sequence-to-sequence model. No pickle, no code of a repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.chapters.podtile.directory import TOKENIZER
from models.hub.fetch import fetch, is_hub_name
from services.errors import ConfigurationError
from services.extra import needs
from services.manifest import as_path, has_manifest, is_path

SHIPPED = Path(__file__).resolve().parents[1] / "weights"
# Of sequence-to-sequence models with relative positions (T5, LongT5), which name no longest input.
UNLIMITED = 16_384


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`model` is one of transformers' in evaluation mode, `tokenizer` the one of `tokenizers` that belongs to it.

    `positions` is the longest input; of a decoder what it writes is a part of it.
    """

    model: Any
    tokenizer: Any
    directory: Path
    seq2seq: bool
    begin: int | None
    ends: tuple[int, ...]
    positions: int

    def prompt_ids(self, prompt: str) -> list[int]:
        """What a sequence-to-sequence model's encoder reads, or what a decoder's answer stands behind."""
        if self.seq2seq:
            return list(self.tokenizer.encode(prompt).ids)
        before = [] if self.begin is None else [self.begin]
        return [*before, *self.answer_ids(prompt)]

    def answer_ids(self, text: str) -> list[int]:
        """Without what opens and closes a text."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)


def brought(source: str) -> Path:
    """The directory of a source: a shipped model, a path, a start (`smollm2`) or a hub's name, fetched where need be.

    Raises ConfigurationError (`bad_checkpoint`) and those of `models.hub.fetch.fetch`.
    """
    if not is_path(source) and has_manifest(SHIPPED / source):
        return SHIPPED / source
    path = as_path(source)
    if path.is_dir():
        return path
    if is_hub_name(source):
        return fetch(source)
    from models.chapters.podtile.starts import STARTS, start_directory

    if source in STARTS:
        return start_directory(source)
    raise ConfigurationError(
        "bad_checkpoint",
        f"There is no model {source!r}: give a directory with config.json, tokenizer.json and safetensors, a hub's "
        f"name (owner/model), or one of {', '.join(STARTS)}.",
    )


def load_checkpoint(directory: Path, dtype: str = "float32") -> Checkpoint:
    """`dtype`: float32, bfloat16. Raises ConfigurationError: `missing_library`, `bad_checkpoint`."""
    with needs("torch", "make chapters with a generator", "train"), needs("transformers", "make chapters", "train"):
        import torch
        from tokenizers import Tokenizer
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(str(directory), **options)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, report = kind.from_pretrained(
            str(directory),
            config=config,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
        # the file itself: a tokeniser's class in transformers may replace parts of it
        tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
    except Exception as error:  # transformers, safetensors and tokenizers have no common base
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigurationError(
            "bad_checkpoint",
            f"{directory} cannot be used: {first} (wanted: config.json, tokenizer.json and safetensors of a decoder or "
            "a sequence-to-sequence model of transformers; pickles are refused).",
        ) from None
    if missing := sorted(report["missing_keys"]):
        raise ConfigurationError(
            "bad_checkpoint", f"{directory} lacks {len(missing)} tensors of its model, {missing[0]} among them."
        )
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise ConfigurationError(
            "bad_checkpoint",
            f"{directory} has {tokenizer.get_vocab_size():,} pieces in its tokeniser and {config.vocab_size:,} "
            "embeddings: they do not belong together.",
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ends = config.eos_token_id
    return Checkpoint(
        model.eval(),
        tokenizer,
        directory,
        seq2seq=bool(config.is_encoder_decoder),
        begin=config.decoder_start_token_id if config.is_encoder_decoder else config.bos_token_id,
        ends=tuple(ends) if isinstance(ends, list) else () if ends is None else (int(ends),),
        positions=int(getattr(config, "max_position_embeddings", 0) or UNLIMITED),
    )
