"""A chapter model that answers prompts, greedily."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.chapters.podtile.checkpoint import Checkpoint, brought, load_checkpoint
from models.chapters.podtile.directory import ADAPTER, Base, ChapterManifest, read_chapter_manifest
from models.chapters.podtile.prompt import FORMAT
from services.errors import ConfigurationError
from services.extra import needs
from services.manifest import has_manifest, record

_WEIGHTS = "*.safetensors"
_AT_ONCE = 1024  # lines that are counted together


@dataclass(frozen=True, slots=True)
class Reading:
    """How much a generator reads and writes at once, in pieces. See `ChapterRecipe`."""

    part_pieces: int
    answer_pieces: int
    title_pieces: int


class TransformersGenerator:
    """See `models.chapters.podtile.engine.Generator`."""

    def __init__(self, checkpoint: Checkpoint, reading: Reading, fingerprint: str) -> None:
        self._checkpoint, self._reading, self.fingerprint = checkpoint, reading, fingerprint

    @property
    def part_pieces(self) -> int:
        return min(self._reading.part_pieces, self._checkpoint.positions)

    @property
    def answer_pieces(self) -> int:
        return self._reading.answer_pieces

    @property
    def title_pieces(self) -> int:
        return self._reading.title_pieces

    def pieces(self, texts: Sequence[str]) -> list[int]:
        found: list[int] = []
        for i in range(0, len(texts), _AT_ONCE):
            rows = self._checkpoint.tokenizer.encode_batch_fast(list(texts[i : i + _AT_ONCE]), add_special_tokens=False)
            found += (len(row) for row in rows)
        return found

    def write(self, prompt: str, begun: str = "", seconds: float | None = None) -> str:
        import torch
        from transformers import GenerationConfig

        held = self._checkpoint
        config = GenerationConfig(
            max_new_tokens=self._reading.answer_pieces,
            do_sample=False,
            eos_token_id=list(held.ends) or None,
            pad_token_id=held.ends[0] if held.ends else 0,
            bos_token_id=held.begin,
            decoder_start_token_id=held.begin if held.seq2seq else None,
            max_time=seconds,
        )
        read, given = held.prompt_ids(prompt), held.answer_ids(begun) if begun else []
        with torch.inference_mode():
            if held.seq2seq:
                start = [] if held.begin is None else [held.begin]
                out = held.model.generate(
                    torch.tensor([read]), decoder_input_ids=torch.tensor([[*start, *given]]), generation_config=config
                )
                new = out[0, len(start) + len(given) :]
            else:
                ids = torch.tensor([[*read, *given]])
                out = held.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
                new = out[0, ids.shape[1] :]
        return begun + str(held.tokenizer.decode(new.tolist(), skip_special_tokens=True))


def open_generator(source: str, threads: int | None = None) -> tuple[TransformersGenerator, ChapterManifest | None]:
    """The generator of a chapter model's directory (with its manifest), or of a plain model of transformers, which
    reads 4,096 pieces at once. `threads` of torch, for the whole process.

    Raises ConfigurationError: `missing_library`, `bad_checkpoint`, `bad_manifest`, `other_base` and others of
    `read_chapter_manifest` and `brought`.
    """
    directory = brought(source)
    with needs("torch", "make chapters with a generator", "train"):
        import torch

    from models.training.device import cpu_dtype

    if threads:
        torch.set_num_threads(threads)
    dtype = str(cpu_dtype()).removeprefix("torch.")
    if not has_manifest(directory):
        checkpoint = load_checkpoint(directory, dtype)
        reading = Reading(min(4096, checkpoint.positions), 256, min(1024, checkpoint.positions))
        return TransformersGenerator(checkpoint, reading, _plain_fingerprint(directory)), None
    manifest = read_chapter_manifest(directory)
    reading = Reading(manifest.part_pieces, manifest.answer_pieces, manifest.title_pieces)
    if manifest.base is None:
        return TransformersGenerator(load_checkpoint(directory, dtype), reading, manifest.fingerprint), manifest
    checkpoint = load_checkpoint(base_directory(manifest.base), dtype)
    checkpoint = adapted(checkpoint, directory, manifest)
    return TransformersGenerator(checkpoint, reading, manifest.fingerprint), manifest


def base_directory(base: Base) -> Path:
    """Where the model is that adapters belong to. Raises ConfigurationError (`other_base`) for another one."""
    directory = brought(base.source)
    if weights_sha256(directory) != base.sha256:
        raise ConfigurationError(
            "other_base", f"{directory} holds other weights than those that the adapters were trained on."
        )
    return directory


def weights_sha256(directory: Path) -> str:
    """Of all files of weights of a checkpoint, by their names."""
    digest = hashlib.sha256()
    for path in sorted(directory.glob(_WEIGHTS)):
        digest.update(f"{path.name}:{record(path).sha256}\n".encode())
    return digest.hexdigest()


def adapted(checkpoint: Checkpoint, directory: Path, manifest: ChapterManifest) -> Checkpoint:
    """The checkpoint with the adapters of a directory added in. Raises ConfigurationError (`bad_checkpoint`)."""
    if missing := [name for name in ADAPTER if name not in manifest.files]:
        raise ConfigurationError("bad_manifest", f"{directory} names a base and lists no {missing[0]}.")
    with needs("peft", "make chapters with an adapted generator", "train"):
        from models.chapters.podtile.adapters import with_adapters
    try:
        merged = with_adapters(checkpoint.model, directory)
    except Exception as error:  # peft, safetensors and torch have no common base
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigurationError("bad_checkpoint", f"The adapters of {directory} cannot be used: {first}") from None
    return Checkpoint(
        merged.eval(),
        checkpoint.tokenizer,
        directory,
        checkpoint.seq2seq,
        checkpoint.begin,
        checkpoint.ends,
        checkpoint.positions,
    )


def _plain_fingerprint(directory: Path) -> str:
    names = (record(path).sha256 for path in (directory / "config.json", directory / "tokenizer.json"))
    told = "\n".join([str(FORMAT), *names, weights_sha256(directory)])
    return hashlib.sha256(told.encode()).hexdigest()[:16]
