"""Training data of a chapter generator: recipe, examples from annotated episodes, and their tensors.

An example is a prompt and the answer that the generator should write. `make_examples` cuts episodes with chapters by
people into the same parts as the engine (`models.chapters.podtile`, PODTILE, arXiv 2410.16148). `ExampleCollator` pads
on the left for a decoder, so that the answers end together, and on the right for an encoder.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.chapters.engine import AnnotatedEpisode
from models.chapters.podtile import MIN_PROMPT_PIECES
from models.chapters.podtile_checkpoint import GeneratorCheckpoint
from models.chapters.podtile_prompt import (
    PROMPT_SUFFIX,
    ContextLimits,
    PieceCounter,
    PromptLine,
    format_answer,
    format_answer_prefix,
    format_context,
    format_numbered_line,
    nearest_line,
    next_chunk,
    split_into_lines,
)
from services.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

IGNORED_LABEL = -100  # label of pieces that the loss ignores
# Title of a chapter without one.
_FIRST_TITLE = "Introduction"


class ChapterRecipe(BaseModel):
    """Settings of `train_chapters`. The defaults are for training on a CPU.

    Input:
    - `part_pieces`: pieces that the model reads and writes at once; `answer_pieces`: its share for the answer; `ahead`:
      the share of a part that the next part reads again.
    - `description_pieces`, `earlier_titles_pieces`: the most pieces of the description and of earlier titles in a
      prompt.
    - `titles_share`: share of title examples: one chapter whose beginning is given, to be completed by its title. A
      title example has up to `title_pieces`: it teaches a title for a fraction of a part's work.
    - `none_share`: largest share of parts without a chapter among the parts.

    Trained weights: adapters of `rank` and `alpha` on every linear layer, with `dropout`; rank 0 trains all weights.

    Optimisation, AdamW with a linear warm-up and decay: `steps` of `batch` examples, `mini_batch` of them at once.
    `precision` is that of frozen weights; trained weights are float32. `auto` is bfloat16 where the hardware has it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    part_pieces: int = Field(default=1024, ge=128, le=131_072)
    answer_pieces: int = Field(default=96, ge=16, le=4096)
    description_pieces: int = Field(default=96, ge=0)
    earlier_titles_pieces: int = Field(default=112, ge=0)
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
    def _validate_sizes(self) -> Self:
        if self.batch % self.mini_batch:
            raise ValueError("batch must be a multiple of mini_batch")
        if self.answer_pieces * 2 > self.part_pieces:
            raise ValueError("answer_pieces may be at most half of part_pieces")
        if self.title_pieces > self.part_pieces:
            raise ValueError("title_pieces may be at most part_pieces")
        if (self.description_pieces + self.earlier_titles_pieces) * 2 > self.part_pieces:
            raise ValueError("description_pieces and earlier_titles_pieces together may be at most half of part_pieces")
        return self


def read_chapter_recipe(path: Path | None, steps: int | None) -> ChapterRecipe:
    """Read a recipe from a TOML file; `steps` overrides the file. Raises ConfigurationError (`bad_recipe`)."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8")) if path else {}
        return ChapterRecipe.model_validate(content | ({} if steps is None else {"steps": steps}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the recipe"
        raise ConfigurationError("bad_recipe", f"{path or 'The recipe'}: {where}: {first['msg']}.") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad_recipe", f"{path} cannot be read as TOML: {error}.") from None


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """Prompt and answer. `prefix` is the given beginning of the answer; `target` is the continuation to learn."""

    prompt: str
    prefix: str
    target: str


def make_examples(
    episodes: Iterable[AnnotatedEpisode], recipe: ChapterRecipe, count: PieceCounter
) -> list[TrainingExample]:
    """Make title and part examples in the recipe's shares, in an order that the seed decides; `count` counts pieces."""
    shuffler = random.Random(recipe.seed)  # noqa: S311 (an order, not a secret)
    titles: list[TrainingExample] = []
    parts: list[TrainingExample] = []
    empty: list[TrainingExample] = []
    for episode in episodes:
        lines = _EpisodeLines(episode, recipe, count)
        titles += lines.titles()
        for example in lines.parts():
            (empty if example.target == format_answer([]) else parts).append(example)
    for examples in (titles, parts, empty):
        shuffler.shuffle(examples)
    if recipe.none_share < 1:
        parts += empty[: round(len(parts) * recipe.none_share / (1 - recipe.none_share))]
    else:
        parts += empty
    shuffler.shuffle(parts)
    return _interleave_examples(titles, parts, recipe.titles_share)


def _interleave_examples(
    titles: list[TrainingExample], parts: list[TrainingExample], share: float
) -> list[TrainingExample]:
    """Alternate titles and parts by share while both last, then append the rest of the other."""
    mixed: list[TrainingExample] = []
    used = 0
    while used < len(titles) and len(mixed) - used < len(parts):
        if used < share * (len(mixed) + 1):
            mixed.append(titles[used])
            used += 1
        else:
            mixed.append(parts[len(mixed) - used])
    rest = parts[len(mixed) - used :] if share < 1 else []
    return [*mixed, *(titles[used:] if share > 0 else []), *rest]


class _EpisodeLines:
    """Lines of an episode, their pieces, and the lines at which chapters begin."""

    def __init__(self, annotated: AnnotatedEpisode, recipe: ChapterRecipe, count: PieceCounter) -> None:
        self._episode, self._recipe, self._count = annotated.episode, recipe, count
        self._lines: list[PromptLine] = split_into_lines(annotated.episode)
        self._shown = [annotated.episode.text[line.start : line.end] for line in self._lines]
        self._pieces = count([format_numbered_line(999, text) for text in self._shown])
        self._chapters: dict[int, str] = {}
        for chapter in annotated.chapters:
            self._chapters.setdefault(nearest_line(self._lines, chapter.start), chapter.title)

    def titles(self) -> Iterator[TrainingExample]:
        """Yield an example for each titled chapter: its beginning, after the titles of the chapters before it."""
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
        """Yield the parts that the engine would make, after the titles that people gave to the chapters before them."""
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
            prefix = "" if first else format_answer_prefix()
            target = format_answer(inside)
            yield TrainingExample(self._prompt(context, first, part.end), prefix, target.removeprefix(prefix))
            first = part.settled

    def _head(self, first: int) -> str:
        so_far = [title or _FIRST_TITLE for line, title in self._chapters.items() if line < first]
        limits = ContextLimits(self._recipe.description_pieces, self._recipe.earlier_titles_pieces, self._count)
        return format_context(self._episode.title, self._episode.description, so_far, limits)

    def _room(self, context: str, pieces: int) -> int:
        return max(MIN_PROMPT_PIECES, pieces - sum(self._count([context, PROMPT_SUFFIX])) - self._recipe.answer_pieces)

    def _prompt(self, context: str, first: int, end: int) -> str:
        shown = (format_numbered_line(i, text) for i, text in enumerate(self._shown[first:end], 1))
        return "".join([context, *shown, PROMPT_SUFFIX])


@dataclass(frozen=True, slots=True)
class ExampleCollator:
    """Collator of a checkpoint. `longest` limits the input; a longer prompt loses its end."""

    checkpoint: GeneratorCheckpoint
    longest: int

    def __call__(self, rows: Sequence[TrainingExample]) -> dict[str, Any]:
        return self._encoded(rows) if self.checkpoint.seq2seq else self._continued(rows)

    def _target(self, example: TrainingExample) -> tuple[list[int], list[int]]:
        checkpoint = self.checkpoint
        prefix = checkpoint.answer_ids(example.prefix) if example.prefix else []
        return prefix, [*checkpoint.answer_ids(example.target), *checkpoint.ends[:1]]

    def _continued(self, rows: Sequence[TrainingExample]) -> dict[str, Any]:
        ids, labels = [], []
        for example in rows:
            prefix, target = self._target(example)
            prompt = self.checkpoint.prompt_ids(example.prompt)[: max(1, self.longest - len(prefix) - len(target))]
            ids.append([*prompt, *prefix, *target])
            labels.append([*[IGNORED_LABEL] * (len(prompt) + len(prefix)), *target])
        input_ids, mask = _pad_rows(ids, 0, left=True)
        return {
            "input_ids": input_ids,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
            "labels": _pad_rows(labels, IGNORED_LABEL, left=True)[0],
        }

    def _encoded(self, rows: Sequence[TrainingExample]) -> dict[str, Any]:
        ids, decoder_inputs, labels = [], [], []
        for example in rows:
            prefix, target = self._target(example)
            ids.append(self.checkpoint.prompt_ids(example.prompt)[: self.longest])
            start = [] if self.checkpoint.begin is None else [self.checkpoint.begin]
            decoder_inputs.append([*start, *prefix, *target[:-1]])
            labels.append([*[IGNORED_LABEL] * len(prefix), *target])
        input_ids, mask = _pad_rows(ids, 0, left=False)
        return {
            "input_ids": input_ids,
            "attention_mask": mask,
            "decoder_input_ids": _pad_rows(decoder_inputs, 0, left=False)[0],
            "labels": _pad_rows(labels, IGNORED_LABEL, left=False)[0],
        }


def _pad_rows(rows: Sequence[list[int]], filling: int, *, left: bool) -> tuple[Tensor, Tensor]:
    import torch

    width = max(map(len, rows))
    values = torch.full((len(rows), width), filling)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        values[i, place], mask[i, place] = torch.tensor(row), 1
    return values, mask
