"""Prompts of the chapter engine `podtile`, and answers to them.

A prompt has the talk's title, description and latest chapter titles, then numbered lines of the transcript
(`split_into_lines`), as many as fit (`next_chunk`). The answer is a list of line numbers and titles: `[1] Title [12]
Title`. Training and inference use the same format; another format needs another `PROMPT_FORMAT_VERSION`
(docs/decisions/0197). `AnswerGrammar` says which pieces may follow in an answer, so that a generator writes nothing
else (docs/decisions/0266).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.chapters.engine import Episode

PROMPT_FORMAT_VERSION = 1
PROMPT_SUFFIX = "\nChapters:"
NO_ANSWER = "none"
# Sentences of a transcript are joined up to this length. A line number costs four to five pieces: a quarter of a spoken
# sentence, and a tenth of forty words.
TARGET_LINE_CHARACTERS = 240
# Longer lines are cut, for talks without full stops. Few paragraphs are longer.
MAX_LINE_CHARACTERS = 1200
_TITLE_CHARACTERS = 120
# Limits of models that were trained before recipes had them in pieces.
_DESCRIPTION_CHARACTERS, _LATEST_TITLES_CHARACTERS = 400, 480
_SENTENCE_END = re.compile(r"[.!?…。！？]['\"”’)]*\s+")
_SPACES = re.compile(r"\s+")
# `[12] Title`, or a line `12: Title`, the form of models that were trained on other lists.
_ANCHOR = re.compile(r"\[(\d{1,6})\](?:\s*+:)?|^[^\S\n]*+(\d{1,6})[:.)]\s", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PromptLine:
    """A line of a prompt: characters `start` to `end` of the text, without the space before the next line."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LineChunk:
    """Lines `first` to `end` (exclusive) of one prompt.

    Chapters that begin at the line `settled` or later are left to the next chunk, which shows more of the text after
    them.
    """

    first: int
    end: int
    settled: int


def split_into_lines(episode: Episode) -> list[PromptLine]:
    """Join segments into lines of up to `TARGET_LINE_CHARACTERS`; cut segments above `MAX_LINE_CHARACTERS`."""
    lines: list[PromptLine] = []
    line_start: int | None = None
    ends = [*episode.segments.offsets[1:], len(episode.text)]
    for start, end in zip(episode.segments.offsets, ends, strict=False):
        if line_start is not None and end - line_start > TARGET_LINE_CHARACTERS:
            lines += _split_segment(episode.text, line_start, start)
            line_start = None
        if line_start is None:
            line_start = start
    if line_start is not None:
        lines += _split_segment(episode.text, line_start, len(episode.text))
    return lines


def _split_segment(text: str, start: int, end: int) -> Iterator[PromptLine]:
    while end - start > MAX_LINE_CHARACTERS:
        middle = _last_break(text, start + MAX_LINE_CHARACTERS // 2, start + MAX_LINE_CHARACTERS)
        yield from _strip_line(text, start, middle)
        start = middle
    yield from _strip_line(text, start, end)


def _last_break(text: str, low: int, high: int) -> int:
    """Return the position after the last sentence end in text[low:high], else after its last space, else `high`."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text, low, high)]
    if ends:
        return ends[-1]
    space = text.rfind(" ", low, high)
    return high if space < 0 else space + 1


def _strip_line(text: str, start: int, end: int) -> Iterator[PromptLine]:
    """Yield the line without the space at its end, or nothing if it is blank."""
    shown = text[start:end].rstrip()
    if shown.strip():
        yield PromptLine(start, start + len(shown))


def nearest_line(lines: Sequence[PromptLine], offset: int) -> int:
    """Return the number of the line whose start is nearest to `offset`; the earlier line if two are equally near."""
    return min(range(len(lines)), key=lambda i: abs(lines[i].start - offset))


def next_chunk(pieces: Sequence[int], first: int, room: int, ahead: float) -> LineChunk:
    """Return the chunk from the line `first`: the lines that fit `room` pieces, at least one.

    `pieces`: of each line. `ahead`: share of `room` that the next chunk shows again.
    """
    end, used = first, 0
    while end < len(pieces) and (end == first or used + pieces[end] <= room):
        used += pieces[end]
        end += 1
    if end == len(pieces):
        return LineChunk(first, end, end)
    settled, repeated = end, 0
    while settled > first + 1 and repeated + pieces[settled - 1] <= ahead * room:
        settled -= 1
        repeated += pieces[settled]
    return LineChunk(first, end, settled)


PieceCounter = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True, slots=True)
class ContextLimits:
    """The most pieces of the description and of the earlier chapter titles in a prompt; `count` counts pieces."""

    description: int
    titles: int
    count: PieceCounter


def format_context(
    title: str, description: str, chapter_titles: Sequence[str], limits: ContextLimits | None = None
) -> str:
    """Format the context of a chunk: title and description of the talk, and its latest chapter titles.

    Without `limits` the description has 400 characters, and the titles 480.
    """
    lines = [f"Title: {clean_title(title)[:_TITLE_CHARACTERS]}"]
    about = clean_title(description)
    about = about[:_DESCRIPTION_CHARACTERS] if limits is None else fit_text(about, limits.description, limits.count)
    if about:
        lines.append(f"About: {about}")
    shown = [clean_title(chapter)[:_TITLE_CHARACTERS] for chapter in chapter_titles]
    sizes = [len(chapter) + 2 for chapter in shown] if limits is None else limits.count([f"; {c}" for c in shown])
    if titles := _latest_titles(shown, sizes, _LATEST_TITLES_CHARACTERS if limits is None else limits.titles):
        lines.append(f"Chapters so far: {'; '.join(titles)}")
    return "\n".join(lines) + "\nTranscript:"


def fit_text(text: str, room: int, count: PieceCounter) -> str:
    """Return the beginning of a text that fits `room` pieces. A script that the vocabulary spells out needs many."""
    low, high = 0, len(text)
    if count([text])[0] <= room:
        return text
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count([text[:middle]])[0] <= room else (low, middle - 1)
    return text[:low].rstrip()


def _latest_titles(titles: Sequence[str], sizes: Sequence[int], room: int) -> list[str]:
    """Return the latest titles whose sizes fit `room`."""
    first = len(titles)
    while first and sizes[first - 1] <= room:
        first -= 1
        room -= sizes[first]
    return list(titles[first:])


def format_numbered_line(number: int, text: str) -> str:
    """Format a line of the transcript."""
    return f"\n[{number}] {clean_title(text)}"


def format_answer(chapters: Iterable[tuple[int, str]]) -> str:
    """Format the expected answer: line numbers and titles of the chapters that begin there."""
    answer = " ".join(f"[{number}] {clean_title(title)}" for number, title in chapters)
    return f" {answer or NO_ANSWER}"


def format_answer_prefix(number: int = 1) -> str:
    """Format the beginning of an answer whose first chapter begins at a known line."""
    return f" [{number}]"


def parse_answer(text: str, lines: int) -> list[tuple[int, str]]:
    """Parse line numbers (1 to `lines`) and titles out of an answer, ascending, each number once.

    Other text is ignored.
    """
    anchors = list(_ANCHOR.finditer(text))
    titles: dict[int, str] = {}
    for i, anchor in enumerate(anchors):
        number = int(anchor[1] or anchor[2])
        end = anchors[i + 1].start() if i + 1 < len(anchors) else len(text)
        title = text[anchor.end() : end].strip().partition("\n")[0]
        if 1 <= number <= lines and number not in titles:
            titles[number] = clean_title(title)
    return sorted(titles.items())


@dataclass(frozen=True, slots=True)
class AnswerState:
    """Place in an answer: the latest complete line number, and whether its title has begun.

    `digits`: those of a number in brackets that is being written, None outside of brackets. `word`: the beginning of
    `none`.
    """

    latest: int = 0
    digits: str | None = None
    word: str = ""
    titled: bool = False

    @property
    def may_end(self) -> bool:
        return self.word == NO_ANSWER or (self.digits is None and self.titled)

    def follow(self, text: str, lines: int) -> AnswerState | None:
        """Return the state after more text of an answer about `lines` lines; None if the text may not follow."""
        state: AnswerState | None = self
        for character in text:
            if state is None:
                return None
            state = state._next(character, lines)
        return state

    def _next(self, character: str, lines: int) -> AnswerState | None:
        if self.digits is not None:
            return self._next_in_brackets(character, lines)
        if character == "[":
            begins = self.titled or not (self.latest or self.word)
            return replace(self, digits="") if begins and self.latest < lines else None
        if self.latest:
            # A colon after the brackets is no title for `parse_answer`.
            begins = not (character.isspace() or character == ":")
            return None if character == "]" else replace(self, titled=self.titled or begins)
        if character.isspace():
            return self if self.word in ("", NO_ANSWER) else None
        word = self.word + character
        return replace(self, word=word) if NO_ANSWER.startswith(word) else None

    def _next_in_brackets(self, character: str, lines: int) -> AnswerState | None:
        digits = self.digits or ""
        if character == "]":
            number = int(digits or 0)
            return AnswerState(latest=number) if self.latest < number <= lines else None
        if not (character.isascii() and character.isdigit()):
            return None
        # The digits may still become a number above the latest one, up to that of the last line.
        low = high = int(digits + character)
        while 0 < low <= lines:
            if high > self.latest:
                return replace(self, digits=digits + character)
            low, high = 10 * low, 10 * high + 9
        return None


class AnswerGrammar:
    """The pieces of a vocabulary that may follow in an answer: rising line numbers, each with a title, or `none`.

    `texts`: the text of each piece, empty for a special one. `ends`: the pieces that end an answer.
    """

    def __init__(self, texts: Sequence[str], ends: Sequence[int]) -> None:
        self._texts, self._ends = texts, list(ends)
        marked = np.array(["[" in text or "]" in text for text in texts], dtype=np.bool_)
        filled = np.array([bool(text) for text in texts], dtype=np.bool_)
        self._words = filled & ~marked
        self._words[self._ends] = False
        self._marks = np.flatnonzero(marked).tolist()
        # Outside of titles only these can follow: a vocabulary has tens of thousands of others.
        self._short = [piece for piece in np.flatnonzero(self._words).tolist() if _may_be_structure(texts[piece])]

    def follow(self, state: AnswerState, piece: int, lines: int) -> AnswerState | None:
        """Return the state after a piece; None if it may not follow."""
        return state.follow(self._texts[piece], lines)

    def allowed(self, state: AnswerState, lines: int) -> NDArray[np.bool_]:
        """Return whether each piece may follow, bool [vocabulary]."""
        in_title = bool(state.latest) and state.digits is None
        allowed = self._words.copy() if in_title else np.zeros(len(self._texts), dtype=np.bool_)
        for piece in self._marks if in_title else [*self._marks, *self._short]:
            allowed[piece] = state.follow(self._texts[piece], lines) is not None
        allowed[self._ends] = state.may_end
        return allowed


class GrammarLogits:
    """A logits processor of transformers for one answer: pieces that may not follow get the logit -inf."""

    def __init__(self, grammar: AnswerGrammar, prefix: str, lines: int) -> None:
        self._grammar, self._lines = grammar, lines
        self._state = AnswerState().follow(prefix, lines)
        self._began = False

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return the scores, float [1, vocabulary of the model], after the last piece of `input_ids`."""
        import torch

        if self._began and self._state is not None:
            self._state = self._grammar.follow(self._state, int(input_ids[0, -1]), self._lines)
        self._began = True
        if self._state is None:
            return scores
        # A model may have more outputs than its tokeniser has pieces.
        refused = torch.ones(scores.shape[-1], dtype=torch.bool, device=scores.device)
        allowed = torch.from_numpy(self._grammar.allowed(self._state, self._lines))
        refused[: len(allowed)] = ~allowed.to(scores.device)[: len(refused)]
        return scores if refused.all() else scores.masked_fill(refused, -torch.inf)


def _may_be_structure(text: str) -> bool:
    shown = text.strip()
    return not shown or (shown.isascii() and shown.isdigit()) or shown in NO_ANSWER


def clean_title(text: str) -> str:
    """Return a title on one line and without brackets, which mark line numbers."""
    return _SPACES.sub(" ", text.replace("[", "(").replace("]", ")")).strip()
