"""What a generator is to write for what it is given, of episodes that people gave chapters."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from models.chapters.episodes import Chaptered
from models.chapters.podtile.engine import LEAST
from models.chapters.podtile.lines import Line, line_at, lines_of
from models.chapters.podtile.parts import next_part
from models.chapters.podtile.prompt import TAIL, answer, begun, head, numbered
from models.chapters.training.recipe import ChapterRecipe

Count = Callable[[Sequence[str]], list[int]]
# What is said before the first named chapter.
_FIRST = "Introduction"


@dataclass(frozen=True, slots=True)
class Example:
    """`begun` is the part of the answer that is given; `target` is what is learned to follow it."""

    prompt: str
    begun: str
    target: str


def examples(episodes: Iterable[Chaptered], recipe: ChapterRecipe, count: Count) -> list[Example]:
    """In an order that the seed decides, titles and parts in the shares of the recipe; `count` counts pieces."""
    chance = random.Random(recipe.seed)  # noqa: S311 (an order, not a secret)
    titles: list[Example] = []
    parts: list[Example] = []
    empty: list[Example] = []
    for one in episodes:
        made = _Lines(one, recipe, count)
        titles += made.titles()
        for example in made.parts():
            (empty if example.target == answer([]) else parts).append(example)
    for some in (titles, parts, empty):
        chance.shuffle(some)
    if recipe.none_share < 1:
        parts += empty[: round(len(parts) * recipe.none_share / (1 - recipe.none_share))]
    else:
        parts += empty
    chance.shuffle(parts)
    return _mixed(titles, parts, recipe.titles_share)


def _mixed(titles: list[Example], parts: list[Example], share: float) -> list[Example]:
    """Alternating by share for as long as both last, then what is left of the other."""
    mixed: list[Example] = []
    taken = 0
    while taken < len(titles) and len(mixed) - taken < len(parts):
        if taken < share * (len(mixed) + 1):
            mixed.append(titles[taken])
            taken += 1
        else:
            mixed.append(parts[len(mixed) - taken])
    rest = parts[len(mixed) - taken :] if share < 1 else []
    return [*mixed, *(titles[taken:] if share > 0 else []), *rest]


class _Lines:
    """An episode's lines, their pieces, and at which of them chapters begin."""

    def __init__(self, given: Chaptered, recipe: ChapterRecipe, count: Count) -> None:
        self._episode, self._recipe, self._count = given.episode, recipe, count
        self._lines: list[Line] = lines_of(given.episode)
        self._shown = [given.episode.text[line.start : line.end] for line in self._lines]
        self._pieces = count([numbered(999, text) for text in self._shown])
        self._chapters: dict[int, str] = {}
        for chapter in given.chapters:
            self._chapters.setdefault(line_at(self._lines, chapter.start), chapter.title)

    def titles(self) -> Iterator[Example]:
        """One for each chapter with a title: its beginning, and what the chapters before it are called."""
        starts = [*self._chapters, len(self._lines)]
        for i, (first, title) in enumerate(self._chapters.items()):
            if not title:
                continue
            context = self._head(first)
            room = self._room(context, self._recipe.title_pieces)
            part = next_part(self._pieces[: starts[i + 1]], first, room, 0)
            yield Example(self._prompt(context, first, part.end), begun(), answer([(1, title)]).removeprefix(begun()))

    def parts(self) -> Iterator[Example]:
        """The parts that the engine would make, with the titles before them as people wrote them."""
        first = 0
        while first < len(self._lines):
            context = self._head(first)
            room = self._room(context, self._recipe.part_pieces)
            part = next_part(self._pieces, first, room, self._recipe.ahead)
            inside = [
                (line - first + 1, title or _FIRST)
                for line, title in self._chapters.items()
                if first <= line < part.end
            ]
            given = "" if first else begun()
            target = answer(inside)
            yield Example(self._prompt(context, first, part.end), given, target.removeprefix(given))
            first = part.settled

    def _head(self, first: int) -> str:
        so_far = [title or _FIRST for line, title in self._chapters.items() if line < first]
        return head(self._episode.title, self._episode.description, so_far)

    def _room(self, context: str, pieces: int) -> int:
        return max(LEAST, pieces - sum(self._count([context, TAIL])) - self._recipe.answer_pieces)

    def _prompt(self, context: str, first: int, end: int) -> str:
        shown = (numbered(i, text) for i, text in enumerate(self._shown[first:end], 1))
        return "".join([context, *shown, TAIL])
