"""Boundaries and titles written together, part by part, each with the global context (arXiv 2410.16148).

A chapter model that answers prompts, greedily.

The engine `podtile` by the name of its model.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from models.chapters.engine import Episode, ProposedChapter
from models.chapters.podtile_checkpoint import (
    ADAPTER_FILES,
    BaseModelReference,
    ChapterManifest,
    GeneratorCheckpoint,
    load_checkpoint,
    read_chapter_manifest,
    resolve_generator_source,
)
from models.chapters.podtile_prompt import (
    PROMPT_FORMAT_VERSION,
    PROMPT_SUFFIX,
    PromptLine,
    format_answer_prefix,
    format_context,
    format_numbered_line,
    nearest_line,
    next_chunk,
    parse_answer,
    split_into_lines,
)
from services.encoders.manifest import describe_file, has_manifest
from services.errors import ConfigurationError, Overloaded, require_extra

_WEIGHT_FILES = "*.safetensors"
_AT_ONCE = 1024  # lines that are counted together


@dataclass(frozen=True, slots=True)
class GeneratorLimits:
    """How much a generator reads and writes at once, in pieces. See `ChapterRecipe`."""

    part_pieces: int
    answer_pieces: int
    title_pieces: int


class TransformersGenerator:
    """See `models.chapters.podtile.TextGenerator`."""

    def __init__(self, checkpoint: GeneratorCheckpoint, reading: GeneratorLimits, fingerprint: str) -> None:
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
    directory = resolve_generator_source(source)
    with require_extra("torch", "make chapters with a generator", "train"):
        import torch

    from models.training.trainer import cpu_dtype

    if threads:
        torch.set_num_threads(threads)
    dtype = str(cpu_dtype()).removeprefix("torch.")
    if not has_manifest(directory):
        checkpoint = load_checkpoint(directory, dtype)
        reading = GeneratorLimits(min(4096, checkpoint.positions), 256, min(1024, checkpoint.positions))
        return TransformersGenerator(checkpoint, reading, _plain_fingerprint(directory)), None
    manifest = read_chapter_manifest(directory)
    reading = GeneratorLimits(manifest.part_pieces, manifest.answer_pieces, manifest.title_pieces)
    if manifest.base is None:
        return TransformersGenerator(load_checkpoint(directory, dtype), reading, manifest.fingerprint), manifest
    checkpoint = load_checkpoint(resolve_base_directory(manifest.base), dtype)
    checkpoint = merge_adapters(checkpoint, directory, manifest)
    return TransformersGenerator(checkpoint, reading, manifest.fingerprint), manifest


def resolve_base_directory(base: BaseModelReference) -> Path:
    """Where the model is that adapters belong to. Raises ConfigurationError (`other_base`) for another one."""
    directory = resolve_generator_source(base.source)
    if hash_weights(directory) != base.sha256:
        raise ConfigurationError(
            "other_base", f"{directory} holds other weights than those that the adapters were trained on."
        )
    return directory


def hash_weights(directory: Path) -> str:
    """Of all files of weights of a checkpoint, by their names."""
    digest = hashlib.sha256()
    for path in sorted(directory.glob(_WEIGHT_FILES)):
        digest.update(f"{path.name}:{describe_file(path).sha256}\n".encode())
    return digest.hexdigest()


def merge_adapters(checkpoint: GeneratorCheckpoint, directory: Path, manifest: ChapterManifest) -> GeneratorCheckpoint:
    """The checkpoint with the adapters of a directory added in. Raises ConfigurationError (`bad_checkpoint`)."""
    if missing := [name for name in ADAPTER_FILES if name not in manifest.files]:
        raise ConfigurationError("bad_manifest", f"{directory} names a base and lists no {missing[0]}.")
    with require_extra("peft", "make chapters with an adapted generator", "train"):
        from models.chapters.podtile_checkpoint import load_with_adapters
    try:
        merged = load_with_adapters(checkpoint.model, directory)
    except Exception as error:  # peft, safetensors and torch have no common base
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigurationError("bad_checkpoint", f"The adapters of {directory} cannot be used: {first}") from None
    return GeneratorCheckpoint(
        merged.eval(),
        checkpoint.tokenizer,
        directory,
        checkpoint.seq2seq,
        checkpoint.begin,
        checkpoint.ends,
        checkpoint.positions,
    )


def _plain_fingerprint(directory: Path) -> str:
    names = (describe_file(path).sha256 for path in (directory / "config.json", directory / "tokenizer.json"))
    told = "\n".join([str(PROMPT_FORMAT_VERSION), *names, hash_weights(directory)])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


MIN_PROMPT_PIECES = 64  # pieces of transcript, whatever title and description take


class TextGenerator(Protocol):
    """A model that continues text."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def part_pieces(self) -> int:
        """What it reads and writes at once, all together."""
        ...

    @property
    def answer_pieces(self) -> int:
        """What it may write."""
        ...

    @property
    def title_pieces(self) -> int:
        """`part_pieces` where the title of one chapter is asked: its beginning says what it is about."""
        ...

    def pieces(self, texts: Sequence[str]) -> list[int]:
        """How many pieces each text has."""
        ...

    def write(self, prompt: str, begun: str = "", seconds: float | None = None) -> str:
        """The likeliest answer to a prompt that begins with `begun`, which is a part of what is returned.

        It is cut off after `answer_pieces`, and after `seconds`.
        """
        ...


class PodtileEngine:
    """The engine `podtile`. With `boundaries`, chapters begin where that engine says and the generator only writes
    their titles; `ahead` is the share of a part that is read again at the beginning of the next one."""

    name = "podtile"

    def __init__(
        self, generator: TextGenerator, *, boundaries: BoundaryEngine | None = None, ahead: float = 0.125
    ) -> None:
        self._generator, self._boundaries, self._ahead = generator, boundaries, ahead

    @property
    def fingerprint(self) -> str:
        own = f"{self._generator.fingerprint}-{self._ahead:g}"
        return own if self._boundaries is None else f"{own}-{self._boundaries.fingerprint}"

    def propose(self, episode: Episode, seconds: float | None = None) -> list[ProposedChapter]:
        """See `ChapterEngine`. A title that could not be read is empty."""
        clock = TimeBudget(seconds)
        lines = split_into_lines(episode)
        if not lines:
            return []
        if self._boundaries is None:
            return self._together(episode, lines, clock)
        starts = sorted({0, *(one.start for one in self._boundaries.propose(episode, clock.left()))})
        return self.titled(episode, starts, clock.left())

    def titled(self, episode: Episode, starts: Sequence[int], seconds: float | None = None) -> list[ProposedChapter]:
        """A title for each chapter that begins at one of `starts`, ascending characters of the text."""
        clock = TimeBudget(seconds)
        lines = split_into_lines(episode)
        counts = self._counts(episode, lines)
        firsts = [nearest_line(lines, start) for start in starts]
        written: list[ProposedChapter] = []
        for i, (start, first) in enumerate(zip(starts, firsts, strict=True)):
            end = max(first + 1, firsts[i + 1] if i + 1 < len(starts) else len(lines))
            context = format_context(episode.title, episode.description, [one.title for one in written if one.title])
            part = next_chunk(counts[:end], first, self._room(context, self._generator.title_pieces), 0)
            answer = self._write(context, episode, lines[first : part.end], clock, format_answer_prefix())
            titles = parse_answer(answer, 1)
            written.append(ProposedChapter(start, titles[0][1] if titles else ""))
        return written

    def _together(self, episode: Episode, lines: Sequence[PromptLine], clock: TimeBudget) -> list[ProposedChapter]:
        counts = self._counts(episode, lines)
        found: list[ProposedChapter] = []
        taken: set[str] = set()
        first = 0
        while first < len(lines):
            context = format_context(episode.title, episode.description, [one.title for one in found if one.title])
            part = next_chunk(counts, first, self._room(context, self._generator.part_pieces), self._ahead)
            shown = lines[first : part.end]
            # the first part begins with a chapter, which need not be asked
            answer = self._write(context, episode, shown, clock, "" if first else format_answer_prefix())
            for number, title in parse_answer(answer, part.settled - first):
                # A generator that was trained little writes a chapter's title again where the chapter goes on.
                if not title or title.casefold() not in taken:
                    found.append(ProposedChapter(shown[number - 1].start, title))
                    taken.add(title.casefold())
            first = part.settled
        return found

    def _write(
        self, context: str, episode: Episode, lines: Sequence[PromptLine], clock: TimeBudget, beginning: str
    ) -> str:
        shown = [format_numbered_line(i, episode.text[line.start : line.end]) for i, line in enumerate(lines, 1)]
        if len(shown) == 1:
            shown = [_fit_line(shown[0], self._generator, self._room(context, self._generator.part_pieces))]
        answer = self._generator.write("".join([context, *shown, PROMPT_SUFFIX]), beginning, clock.left())
        clock.left()
        return answer

    def _counts(self, episode: Episode, lines: Sequence[PromptLine]) -> list[int]:
        # with the longest number that a part can hold
        return self._generator.pieces(
            [format_numbered_line(999, episode.text[line.start : line.end]) for line in lines]
        )

    def _room(self, context: str, pieces: int) -> int:
        used = sum(self._generator.pieces([context, PROMPT_SUFFIX])) + self._generator.answer_pieces
        return max(MIN_PROMPT_PIECES, pieces - used)


class BoundaryEngine(Protocol):
    """An engine whose boundaries are taken."""

    @property
    def fingerprint(self) -> str: ...

    def propose(self, episode: Episode, seconds: float | None = None) -> Sequence[ProposedChapter]: ...


class TimeBudget:
    """The seconds that are left of an engine's time; None: any number."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Raises Overloaded (`chapters_late`) when there are none."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise Overloaded("chapters_late", "The chapters of this talk were not ready in time.")
        return left


def _fit_line(line: str, generator: TextGenerator, room: int) -> str:
    """A line that alone is more than a part holds, as in scripts that a vocabulary spells out, is shown cut."""
    (count,) = generator.pieces([line])
    while count > room:
        line = line[: max(1, len(line) * room // count)]
        (count,) = generator.pieces([line])
    return line


def open_podtile(source: str, *, tiling: BoundaryEngine | None = None, threads: int | None = None) -> PodtileEngine:
    """The engine with the model of a directory, of a hub's name, or of a start (`smollm2`, untrained).

    `tiling` gives the boundaries to a model whose manifest asks for them; it may be left out for others. Raises
    ConfigurationError: `no_chapter_model` for an empty `source`, and those of `open_generator`.
    """
    if not source:
        raise ConfigurationError(
            "no_chapter_model",
            "The engine podtile needs a model: SPARSEWELL_CHAPTER_MODEL is the shipped `podtile-smollm2`, a "
            "directory (`sparsewell train chapters` makes one) or a name on a hub.",
        )
    generator, manifest = open_generator(source, threads)
    if manifest is None:
        return PodtileEngine(generator)
    if manifest.boundaries == "own":
        return PodtileEngine(generator, ahead=manifest.ahead)
    if tiling is None:
        raise ConfigurationError(
            "no_boundaries", f"{source} titles the chapters of the engine tiling, which is missing."
        )
    return PodtileEngine(generator, boundaries=tiling, ahead=manifest.ahead)
