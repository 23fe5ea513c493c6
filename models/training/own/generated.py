"""Questions that a generator asks about passages, kept when a search finds the passage again (round trip).

The round trip is what makes generated questions usable: one that its own passage does not answer better than the
others do is vague, or about something else (arXiv 2002.03932 and most later work on generated queries filter so).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import orjson

from models.training.masks import Mask
from models.training.pairs import Pair, PairSet, texts_fingerprint
from models.training.ranking import Candidates
from services.errors import ConfigurationError, InvalidInput

QUESTION = "question"
_LEAST_WORDS, _MOST_WORDS = 3, 32
# Between two saves; a passage takes a small model on a core a second or more.
BLOCK = 16
_NUMBERED = re.compile(r"^(?:[-*•]|\(?\d{1,2}[.):])\s+")
_LABEL = re.compile(r"^(?:question|query|q)\s*\d*\s*[:.]\s*", re.IGNORECASE)


_QUOTES = "\"'“”*` \t"


class Generator(Protocol):
    """Asks about passages. `fingerprint` changes whenever the questions could; a call keeps the order of passages."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, passages: Sequence[str]) -> list[list[str]]: ...


def generated_pairs(
    passages: Sequence[str],
    generator: Generator,
    directory: Path,
    done: Callable[[int], object] = lambda passages: None,
) -> PairSet:
    """The questions of every passage as pairs of origin `question`, asked once and kept in `directory`.

    A stopped run goes on behind the last block that was saved; another generator or other passages have a file of
    their own. Lines that are no question (too short, too long, repeated) are left out. `done` hears how many passages
    were asked about.

    Raises InvalidInput (`bad_generator`) for a generator that loses passages, ConfigurationError
    (`unwritable_directory`), and what the generator raises.
    """
    prints = texts_fingerprint([generator.fingerprint, texts_fingerprint(passages)])
    path = directory / f"questions-{generator.name}-{prints}.jsonl"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        asked = _read(path)
        with path.open("ab") as file:
            done(len(asked))
            while len(asked) < len(passages):
                block = list(passages[len(asked) : len(asked) + BLOCK])
                found = generator(block)
                if len(found) != len(block):
                    raise InvalidInput(
                        "bad_generator", f"{generator.name} answered {len(found)} of {len(block)} passages."
                    )
                found = [[_text(one) for one in several] for several in found]
                file.writelines(orjson.dumps(several) + b"\n" for several in found)
                file.flush()
                os.fsync(file.fileno())
                asked += found
                done(len(asked))
    except OSError as error:
        raise ConfigurationError(
            "unwritable_directory",
            f"Cannot write {path} ({error.strerror}). Make room or choose another directory; what is asked stays.",
        ) from None
    return PairSet.of(_pairs(passages, asked))


def round_trip(pairs: PairSet, candidates: Candidates, within: int, block: int = 256) -> Mask:
    """Bool [links]: whether the passage is among the first `within` that `candidates` finds for its query.

    Raises InvalidInput (`bad_filter`) for a `within` below 1.
    """
    if within < 1:
        raise InvalidInput("bad_filter", f"A passage is looked for among the first 1 or more, not {within}.")
    kept = np.zeros(len(pairs), dtype=np.bool_)
    for start in range(0, len(pairs), block):
        links = slice(start, start + block)
        found = candidates.best(pairs.query_rows[links], within)
        kept[links] = (found == pairs.passage_rows[links][:, None]).any(axis=1)
    return kept


def question(line: str) -> str:
    """A line that a generator wrote as a question; empty when it is none."""
    text = _LABEL.sub("", _NUMBERED.sub("", line.strip()).strip(_QUOTES)).strip(_QUOTES)
    return text if _LEAST_WORDS <= len(text.split()) <= _MOST_WORDS else ""


def _pairs(passages: Sequence[str], asked: Sequence[Sequence[str]]) -> Iterator[Pair]:
    for passage, lines in zip(passages, asked, strict=True):
        for text in dict.fromkeys(question(line) for line in lines):
            if text:
                yield Pair(text, passage, QUESTION)


def _read(path: Path) -> list[list[str]]:
    """What is there whole; a line that a killed run left half written is cut off the file."""
    if not path.exists():
        return []
    found: list[list[str]] = []
    whole = 0
    with path.open("rb+") as file:
        for line in file:
            try:
                found.append([str(one) for one in orjson.loads(line)])
            except (orjson.JSONDecodeError, TypeError):
                break
            if not line.endswith(b"\n"):
                found.pop()
                break
            whole += len(line)
        file.truncate(whole)
    return found


def _text(line: str) -> str:
    """Without halves of surrogates, which a model may write and JSON cannot hold."""
    return line.encode("utf-8", "replace").decode()
