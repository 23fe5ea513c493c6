"""The chapter engine `podtile`: a generator that writes boundaries and titles (PODTILE, arXiv 2410.16148).

A talk is longer than a model's input, so `PodtileEngine` prompts for chunk after chunk. Each prompt has the talk's
title, description and latest chapter titles; decoding is greedy. If its manifest says so, a model only writes titles
for the chapters of the engine `tiling`; small models do this better (docs/decisions/0197). `TransformersGenerator` runs
decoders and sequence-to-sequence models, with or without adapters.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from models.chapters.engine import Episode, ProposedChapter
from models.chapters.podtile_checkpoint import (
    ADAPTER_FILES,
    BaseModelReference,
    ChapterManifest,
    GeneratorCheckpoint,
    load_checkpoint,
    load_with_adapters,
    read_chapter_manifest,
    resolve_generator_source,
)
from models.chapters.podtile_prompt import (
    PROMPT_FORMAT_VERSION,
    PROMPT_SUFFIX,
    AnswerGrammar,
    ContextLimits,
    GrammarLogits,
    PromptLine,
    fit_text,
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
_COUNT_BATCH = 1024  # lines that are tokenised together
# Part of the fingerprint of an engine: 1 is decoding by `AnswerGrammar`.
_DECODING_VERSION = 1
MIN_PROMPT_PIECES = 64  # of the transcript, however long title and description are


class TextGenerator(Protocol):
    """A model that continues text."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def part_pieces(self) -> int:
        """Return the maximum pieces of prompt and answer together."""
        ...

    @property
    def answer_pieces(self) -> int:
        """Return the maximum pieces of an answer."""
        ...

    @property
    def title_pieces(self) -> int:
        """Return `part_pieces` for the title of a single chapter, which needs only the beginning of the chapter."""
        ...

    def pieces(self, texts: Sequence[str]) -> list[int]:
        """Return the number of pieces of each text."""
        ...

    def write(self, prompt: str, lines: int, prefix: str = "", seconds: float | None = None) -> str:
        """Return the greedy answer to a prompt of `lines` numbered lines, with its given beginning `prefix`.

        The answer follows `AnswerGrammar`, is cut off after `answer_pieces`, and after `seconds`.
        """
        ...


class BoundaryEngine(Protocol):
    """An engine that chooses boundaries."""

    @property
    def fingerprint(self) -> str: ...

    def propose(self, episode: Episode, seconds: float | None = None) -> Sequence[ProposedChapter]: ...


class TimeBudget:
    """The remaining time of an engine; None: no limit."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Return the remaining seconds. Raises Overloaded (`chapters_late`) when no time remains."""
        if self._end is None:
            return None
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise Overloaded("chapters_late", "The chapters of this talk were not ready in time.")
        return seconds


class PodtileEngine:
    """The engine `podtile`.

    `boundaries`: an engine that chooses the boundaries; the generator then only writes titles. `ahead`: share of a
    chunk's pieces that the next chunk reads again. `trained`: the generator was trained on people's titles. `context`:
    the most pieces of the description and of earlier titles; None: the limits in characters of older models.
    """

    name = "podtile"

    def __init__(
        self,
        generator: TextGenerator,
        *,
        boundaries: BoundaryEngine | None = None,
        ahead: float = 0.125,
        trained: bool = False,
        context: tuple[int, int] | None = None,
    ) -> None:
        self.trained_titles = trained
        self._generator, self._boundaries, self._ahead = generator, boundaries, ahead
        self._limits = None if context is None else ContextLimits(*context, generator.pieces)

    @property
    def fingerprint(self) -> str:
        fingerprint = f"{self._generator.fingerprint}-{self._ahead:g}-{_DECODING_VERSION}"
        return fingerprint if self._boundaries is None else f"{fingerprint}-{self._boundaries.fingerprint}"

    def propose(self, episode: Episode, seconds: float | None = None) -> list[ProposedChapter]:
        """Propose chapters, see `ChapterEngine`. A title that cannot be parsed is empty."""
        clock = TimeBudget(seconds)
        lines = split_into_lines(episode)
        if not lines:
            return []
        if self._boundaries is None:
            return self._generate(episode, lines, clock)
        starts = sorted({0, *(chapter.start for chapter in self._boundaries.propose(episode, clock.left()))})
        return self.titled(episode, starts, clock.left())

    def titled(self, episode: Episode, starts: Sequence[int], seconds: float | None = None) -> list[ProposedChapter]:
        """Write a title for each chapter. `starts`: their first characters, ascending."""
        clock = TimeBudget(seconds)
        lines = split_into_lines(episode)
        counts = self._counts(episode, lines)
        firsts = [nearest_line(lines, start) for start in starts]
        chapters: list[ProposedChapter] = []
        for i, (start, first) in enumerate(zip(starts, firsts, strict=True)):
            end = max(first + 1, firsts[i + 1] if i + 1 < len(starts) else len(lines))
            context = self._context(episode, chapters)
            chunk = next_chunk(counts[:end], first, self._room(context, self._generator.title_pieces), 0)
            answer = self._write(context, episode, lines[first : chunk.end], clock, format_answer_prefix())
            titles = parse_answer(answer, 1)
            chapters.append(ProposedChapter(start, titles[0][1] if titles else ""))
        return chapters

    def _generate(self, episode: Episode, lines: Sequence[PromptLine], clock: TimeBudget) -> list[ProposedChapter]:
        """Let the generator choose boundaries and titles, chunk by chunk."""
        counts = self._counts(episode, lines)
        chapters: list[ProposedChapter] = []
        used: set[str] = set()
        first = 0
        while first < len(lines):
            context = self._context(episode, chapters)
            chunk = next_chunk(counts, first, self._room(context, self._generator.part_pieces), self._ahead)
            shown = lines[first : chunk.end]
            # A chapter begins with the first chunk, so its answer has a given beginning.
            answer = self._write(context, episode, shown, clock, "" if first else format_answer_prefix())
            for number, title in parse_answer(answer, chunk.settled - first):
                # After little training, a generator repeats a chapter's title where the chapter continues.
                if not title or title.casefold() not in used:
                    chapters.append(ProposedChapter(shown[number - 1].start, title))
                    used.add(title.casefold())
            first = chunk.settled
        return chapters

    def _write(
        self, context: str, episode: Episode, lines: Sequence[PromptLine], clock: TimeBudget, beginning: str
    ) -> str:
        shown = [format_numbered_line(i, episode.text[line.start : line.end]) for i, line in enumerate(lines, 1)]
        if len(shown) == 1:
            room = self._room(context, self._generator.part_pieces)
            shown = [fit_text(shown[0], room, self._generator.pieces)]
        prompt = "".join([context, *shown, PROMPT_SUFFIX])
        answer = self._generator.write(prompt, len(shown), beginning, clock.left())
        clock.left()
        return answer

    def _context(self, episode: Episode, chapters: Sequence[ProposedChapter]) -> str:
        titles = [chapter.title for chapter in chapters if chapter.title]
        return format_context(episode.title, episode.description, titles, self._limits)

    def _counts(self, episode: Episode, lines: Sequence[PromptLine]) -> list[int]:
        # 999 has as many pieces as any number in a chunk.
        return self._generator.pieces(
            [format_numbered_line(999, episode.text[line.start : line.end]) for line in lines]
        )

    def _room(self, context: str, pieces: int) -> int:
        used = sum(self._generator.pieces([context, PROMPT_SUFFIX])) + self._generator.answer_pieces
        return max(MIN_PROMPT_PIECES, pieces - used)


def open_podtile(source: str, *, tiling: BoundaryEngine | None = None, threads: int | None = None) -> PodtileEngine:
    """Open the engine with a shipped model, a directory, a hub model or a starting model (`smollm2`, untrained).

    `tiling`: chooses the boundaries for models whose manifest requires it. Raises ConfigurationError:
    `no_chapter_model` (empty `source`), `no_boundaries` (`tiling` is missing), and those of `open_generator`.
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
    context = manifest.context_pieces
    if manifest.boundaries == "own":
        return PodtileEngine(generator, ahead=manifest.ahead, trained=True, context=context)
    if tiling is None:
        raise ConfigurationError(
            "no_boundaries", f"{source} only titles the chapters of the engine tiling, and this engine is missing."
        )
    return PodtileEngine(generator, boundaries=tiling, ahead=manifest.ahead, trained=True, context=context)


@dataclass(frozen=True, slots=True)
class GeneratorLimits:
    """Lengths of a generator's prompts and answers, in pieces; see `ChapterRecipe`."""

    part_pieces: int
    answer_pieces: int
    title_pieces: int


class TransformersGenerator:
    """A generator of transformers with greedy decoding, see `TextGenerator`."""

    def __init__(self, checkpoint: GeneratorCheckpoint, limits: GeneratorLimits, fingerprint: str) -> None:
        self._checkpoint, self._limits, self.fingerprint = checkpoint, limits, fingerprint
        tokenizer = checkpoint.tokenizer
        pieces = range(tokenizer.get_vocab_size(with_added_tokens=True))
        texts = tokenizer.decode_batch([[piece] for piece in pieces], skip_special_tokens=True)
        self._grammar = AnswerGrammar(texts, checkpoint.ends)

    @property
    def part_pieces(self) -> int:
        return min(self._limits.part_pieces, self._checkpoint.positions)

    @property
    def answer_pieces(self) -> int:
        return self._limits.answer_pieces

    @property
    def title_pieces(self) -> int:
        return self._limits.title_pieces

    def pieces(self, texts: Sequence[str]) -> list[int]:
        counts: list[int] = []
        for i in range(0, len(texts), _COUNT_BATCH):
            rows = self._checkpoint.tokenizer.encode_batch_fast(
                list(texts[i : i + _COUNT_BATCH]), add_special_tokens=False
            )
            counts += (len(row) for row in rows)
        return counts

    def write(self, prompt: str, lines: int, prefix: str = "", seconds: float | None = None) -> str:
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        checkpoint = self._checkpoint
        config = GenerationConfig(
            max_new_tokens=self._limits.answer_pieces,
            do_sample=False,
            eos_token_id=list(checkpoint.ends) or None,
            pad_token_id=checkpoint.ends[0] if checkpoint.ends else 0,
            bos_token_id=checkpoint.begin,
            decoder_start_token_id=checkpoint.begin if checkpoint.seq2seq else None,
            max_time=seconds,
        )
        prompt_ids, prefix_ids = checkpoint.prompt_ids(prompt), checkpoint.answer_ids(prefix) if prefix else []
        with torch.inference_mode():
            if checkpoint.seq2seq:
                start = [] if checkpoint.begin is None else [checkpoint.begin]
                out = checkpoint.model.generate(
                    torch.tensor([prompt_ids]),
                    decoder_input_ids=torch.tensor([[*start, *prefix_ids]]),
                    generation_config=config,
                    logits_processor=LogitsProcessorList([GrammarLogits(self._grammar, prefix, lines)]),
                )
                new = out[0, len(start) + len(prefix_ids) :]
            else:
                ids = torch.tensor([[*prompt_ids, *prefix_ids]])
                out = checkpoint.model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=config,
                    logits_processor=LogitsProcessorList([GrammarLogits(self._grammar, prefix, lines)]),
                )
                new = out[0, ids.shape[1] :]
        return prefix + str(checkpoint.tokenizer.decode(new.tolist(), skip_special_tokens=True))


def open_generator(source: str, threads: int | None = None) -> tuple[TransformersGenerator, ChapterManifest | None]:
    """Open a chapter model with its manifest, or a plain model of transformers (prompts of 4,096 pieces, no manifest).

    `threads`: of torch, for the whole process. Raises ConfigurationError: `missing_library`, `bad_checkpoint`,
    `bad_manifest`, `other_base`, and those of `read_chapter_manifest` and `resolve_generator_source`.
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
        limits = GeneratorLimits(min(4096, checkpoint.positions), 256, min(1024, checkpoint.positions))
        return TransformersGenerator(checkpoint, limits, _plain_fingerprint(directory)), None
    manifest = read_chapter_manifest(directory)
    limits = GeneratorLimits(manifest.part_pieces, manifest.answer_pieces, manifest.title_pieces)
    if manifest.base is None:
        return TransformersGenerator(load_checkpoint(directory, dtype), limits, manifest.fingerprint), manifest
    checkpoint = load_checkpoint(resolve_base_directory(manifest.base), dtype)
    checkpoint = merge_adapters(checkpoint, directory, manifest)
    return TransformersGenerator(checkpoint, limits, manifest.fingerprint), manifest


def resolve_base_directory(base: BaseModelReference) -> Path:
    """Return the directory of the adapters' base model. Raises ConfigurationError (`other_base`) for other weights."""
    directory = resolve_generator_source(base.source)
    if hash_weights(directory) != base.sha256:
        raise ConfigurationError(
            "other_base", f"{directory} does not have the weights that the adapters were trained on."
        )
    return directory


def hash_weights(directory: Path) -> str:
    """Return the sha256 of all weights files of a checkpoint and their names."""
    digest = hashlib.sha256()
    for path in sorted(directory.glob(_WEIGHT_FILES)):
        digest.update(f"{path.name}:{describe_file(path).sha256}\n".encode())
    return digest.hexdigest()


def merge_adapters(checkpoint: GeneratorCheckpoint, directory: Path, manifest: ChapterManifest) -> GeneratorCheckpoint:
    """Merge the adapters of a directory into a checkpoint. Raises ConfigurationError: `bad_manifest`,
    `bad_checkpoint`."""
    if missing := [name for name in ADAPTER_FILES if name not in manifest.files]:
        raise ConfigurationError("bad_manifest", f"{directory} names a base model and lists no {missing[0]}.")
    with require_extra("peft", "make chapters with an adapted generator", "train"):
        import peft  # noqa: F401 (checks that it is installed)
    try:
        merged = load_with_adapters(checkpoint.model, directory)
    except Exception as error:  # peft, safetensors and torch have no common base
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigurationError("bad_checkpoint", f"The adapters of {directory} cannot be used: {first}") from None
    return replace(checkpoint, model=merged.eval(), directory=directory)


def _plain_fingerprint(directory: Path) -> str:
    hashes = (describe_file(path).sha256 for path in (directory / "config.json", directory / "tokenizer.json"))
    content = "\n".join([str(PROMPT_FORMAT_VERSION), *hashes, hash_weights(directory)])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
