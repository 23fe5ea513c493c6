"""What a generator is to write for what it is given, of episodes that people gave chapters.

How a generator of chapters is trained, as a value.

Examples as tensors: padded left for a decoder, whose answers then end together, and right for an encoder.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from models.chapters.engine import AnnotatedEpisode
from models.chapters.podtile import MIN_PROMPT_PIECES
from models.chapters.podtile_checkpoint import GeneratorCheckpoint
from models.chapters.podtile_prompt import (
    PROMPT_SUFFIX,
    PromptLine,
    format_answer,
    format_answer_prefix,
    format_context,
    format_numbered_line,
    nearest_line,
    next_chunk,
    split_into_lines,
)


class ChapterRecipe(BaseModel):
    """The settings of `train_chapters`; what is not named in a recipe file has the default of a processor.

    What is read:
    - `part_pieces`: what the model reads and writes at once, `answer_pieces` what of it is left for the answer,
      `ahead` the share of a part that the next one reads again.
    - `titles_share`: of the examples, those of one chapter whose beginning is known and whose title alone is to be
      written; they have up to `title_pieces`, a fraction of a part's work, and each teaches a title.
    - `none_share`: parts without a chapter, as a share of the parts at most.

    What is changed: adapters of `rank` and `alpha` on every linear layer, with `dropout`; rank 0 trains all weights.

    The optimisation, AdamW with a linear warm-up and decay: `steps` of `batch` examples, `mini_batch` of them at once.
    `precision` is that of frozen weights; what is trained is float32. `auto` is bfloat16 where the hardware has it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    part_pieces: int = Field(default=1024, ge=128, le=131_072)
    answer_pieces: int = Field(default=96, ge=16, le=4096)
    ahead: float = Field(default=0.125, ge=0, le=0.5)
    title_pieces: int = Field(default=448, ge=64)
    titles_share: float = Field(default=0.6, ge=0, le=1)
    none_share: float = Field(default=0.35, ge=0, le=1)

    rank: int = Field(default=16, ge=0, le=1024)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    steps: int = Field(default=160, ge=1)
    batch: int = Field(default=8, ge=1)
    mini_batch: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_norm: float = Field(default=1.0, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_layers: bool = False
    seed: int = 11
    save_every: int = Field(default=20, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.batch % self.mini_batch:
            raise ValueError("batch must be a multiple of mini_batch")
        if self.answer_pieces * 2 > self.part_pieces:
            raise ValueError("answer_pieces may be at most half of part_pieces")
        if self.title_pieces > self.part_pieces:
            raise ValueError("title_pieces may be at most part_pieces")
        return self


PieceCounter = Callable[[Sequence[str]], list[int]]
# What is said before the first named chapter.
_FIRST_TITLE = "Introduction"


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """`begun` is the part of the answer that is given; `target` is what is learned to follow it."""

    prompt: str
    begun: str
    target: str


def make_examples(
    episodes: Iterable[AnnotatedEpisode], recipe: ChapterRecipe, count: PieceCounter
) -> list[TrainingExample]:
    """In an order that the seed decides, titles and parts in the shares of the recipe; `count` counts pieces."""
    chance = random.Random(recipe.seed)  # noqa: S311 (an order, not a secret)
    titles: list[TrainingExample] = []
    parts: list[TrainingExample] = []
    empty: list[TrainingExample] = []
    for one in episodes:
        made = _EpisodeLines(one, recipe, count)
        titles += made.titles()
        for example in made.parts():
            (empty if example.target == format_answer([]) else parts).append(example)
    for some in (titles, parts, empty):
        chance.shuffle(some)
    if recipe.none_share < 1:
        parts += empty[: round(len(parts) * recipe.none_share / (1 - recipe.none_share))]
    else:
        parts += empty
    chance.shuffle(parts)
    return _interleave_examples(titles, parts, recipe.titles_share)


def _interleave_examples(
    titles: list[TrainingExample], parts: list[TrainingExample], share: float
) -> list[TrainingExample]:
    """Alternating by share for as long as both last, then what is left of the other."""
    mixed: list[TrainingExample] = []
    taken = 0
    while taken < len(titles) and len(mixed) - taken < len(parts):
        if taken < share * (len(mixed) + 1):
            mixed.append(titles[taken])
            taken += 1
        else:
            mixed.append(parts[len(mixed) - taken])
    rest = parts[len(mixed) - taken :] if share < 1 else []
    return [*mixed, *(titles[taken:] if share > 0 else []), *rest]


class _EpisodeLines:
    """An episode's lines, their pieces, and at which of them chapters begin."""

    def __init__(self, given: AnnotatedEpisode, recipe: ChapterRecipe, count: PieceCounter) -> None:
        self._episode, self._recipe, self._count = given.episode, recipe, count
        self._lines: list[PromptLine] = split_into_lines(given.episode)
        self._shown = [given.episode.text[line.start : line.end] for line in self._lines]
        self._pieces = count([format_numbered_line(999, text) for text in self._shown])
        self._chapters: dict[int, str] = {}
        for chapter in given.chapters:
            self._chapters.setdefault(nearest_line(self._lines, chapter.start), chapter.title)

    def titles(self) -> Iterator[TrainingExample]:
        """One for each chapter with a title: its beginning, and what the chapters before it are called."""
        starts = [*self._chapters, len(self._lines)]
        for i, (first, title) in enumerate(self._chapters.items()):
            if not title:
                continue
            context = self._head(first)
            room = self._room(context, self._recipe.title_pieces)
            part = next_chunk(self._pieces[: starts[i + 1]], first, room, 0)
            yield TrainingExample(
                self._prompt(context, first, part.end),
                format_answer_prefix(),
                format_answer([(1, title)]).removeprefix(format_answer_prefix()),
            )

    def parts(self) -> Iterator[TrainingExample]:
        """The parts that the engine would make, with the titles before them as people wrote them."""
        first = 0
        while first < len(self._lines):
            context = self._head(first)
            room = self._room(context, self._recipe.part_pieces)
            part = next_chunk(self._pieces, first, room, self._recipe.ahead)
            inside = [
                (line - first + 1, title or _FIRST_TITLE)
                for line, title in self._chapters.items()
                if first <= line < part.end
            ]
            given = "" if first else format_answer_prefix()
            target = format_answer(inside)
            yield TrainingExample(self._prompt(context, first, part.end), given, target.removeprefix(given))
            first = part.settled

    def _head(self, first: int) -> str:
        so_far = [title or _FIRST_TITLE for line, title in self._chapters.items() if line < first]
        return format_context(self._episode.title, self._episode.description, so_far)

    def _room(self, context: str, pieces: int) -> int:
        return max(MIN_PROMPT_PIECES, pieces - sum(self._count([context, PROMPT_SUFFIX])) - self._recipe.answer_pieces)

    def _prompt(self, context: str, first: int, end: int) -> str:
        shown = (format_numbered_line(i, text) for i, text in enumerate(self._shown[first:end], 1))
        return "".join([context, *shown, PROMPT_SUFFIX])


IGNORED_LABEL = -100  # the label of what is not learned


@dataclass(frozen=True, slots=True)
class ExampleCollator:
    """The collator of a checkpoint. `longest` bounds what is read; what is too long loses its end before the answer."""

    checkpoint: GeneratorCheckpoint
    longest: int

    def __call__(self, rows: Sequence[TrainingExample]) -> dict[str, Any]:
        return self._encoded(rows) if self.checkpoint.seq2seq else self._continued(rows)

    def _target(self, example: TrainingExample) -> tuple[list[int], list[int]]:
        held = self.checkpoint
        given = held.answer_ids(example.begun) if example.begun else []
        return given, [*held.answer_ids(example.target), *held.ends[:1]]

    def _continued(self, rows: Sequence[TrainingExample]) -> dict[str, Any]:
        ids, labels = [], []
        for example in rows:
            given, target = self._target(example)
            read = self.checkpoint.prompt_ids(example.prompt)[: max(1, self.longest - len(given) - len(target))]
            ids.append([*read, *given, *target])
            labels.append([*[IGNORED_LABEL] * (len(read) + len(given)), *target])
        input_ids, mask = _pad_rows(ids, 0, left=True)
        return {
            "input_ids": input_ids,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
            "labels": _pad_rows(labels, IGNORED_LABEL, left=True)[0],
        }

    def _encoded(self, rows: Sequence[TrainingExample]) -> dict[str, Any]:
        ids, before, labels = [], [], []
        for example in rows:
            given, target = self._target(example)
            ids.append(self.checkpoint.prompt_ids(example.prompt)[: self.longest])
            start = [] if self.checkpoint.begin is None else [self.checkpoint.begin]
            before.append([*start, *given, *target[:-1]])
            labels.append([*[IGNORED_LABEL] * len(given), *target])
        input_ids, mask = _pad_rows(ids, 0, left=False)
        return {
            "input_ids": input_ids,
            "attention_mask": mask,
            "decoder_input_ids": _pad_rows(before, 0, left=False)[0],
            "labels": _pad_rows(labels, IGNORED_LABEL, left=False)[0],
        }


def _pad_rows(rows: Sequence[list[int]], filling: int, *, left: bool) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    values = torch.full((len(rows), width), filling)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        values[i, place], mask[i, place] = torch.tensor(row), 1
    return values, mask
