"""Pairs out of documents that nobody asked about: what stands in a document asks for a passage of it.

* `title`: the title for passages of the document;
* `heading`: title and heading for the section below it;
* `inverse-cloze`: a sentence for its paragraph, from which it is removed nine times in ten (arXiv 1906.00300, 3.3; kept
  in the tenth so that exact words are learned too);
* `body-first`: a sentence of the first section for another passage of the page (arXiv 2002.03932, 3.2);
* `keywords`: a few rare words of a passage for it, as people type them.

A passage has one text in all its pairs: if the one without its sentence stood beside the whole one, each would be a
false negative of the other's queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from models.training.own.function_words import function_words, passage_counts, words
from models.training.own.sections import Passage, passages
from models.training.own.sentences import sentence_spans
from models.training.pairs import Pair, PairSet
from services.documents import Document
from services.errors import InvalidInput

# Below this a batch holds most of the corpus, and a held-out part has no figure worth the name.
LEAST_PASSAGES = 64
_LEAST_QUERY, _MOST_QUERY = 3, 32  # words of a sentence that becomes a query
_COMMON_TITLE = 3  # documents or sections; "Introduction" asks for nothing


class Kind(StrEnum):
    """How a pair was made: its origin in the pair set."""

    TITLE = "title"
    HEADING = "heading"
    INVERSE_CLOZE = "inverse-cloze"
    BODY_FIRST = "body-first"
    KEYWORDS = "keywords"


@dataclass(frozen=True, slots=True)
class PairOptions:
    """`drop_function_words`: from queries that are cut out of a text, see `function_words` for why.

    `per_document` passages of a document, evenly spread and the first among them, get pairs. `removed` is how often
    the sentence of inverse cloze leaves its paragraph.
    """

    kinds: tuple[Kind, ...] = tuple(Kind)
    passage_words: int = 150
    per_document: int = 8
    removed: float = 0.9
    drop_function_words: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.kinds or self.passage_words < 20 or self.per_document < 1 or not 0 <= self.removed <= 1:
            raise InvalidInput(
                "bad_pair_options",
                "Pairs are made of at least one kind, from passages of 20 words or more, of 1 or more passages a "
                f"document, with a share removed between 0 and 1: {self}.",
            )


def own_pairs(documents: Iterable[Document], options: PairOptions) -> PairSet:
    """The pairs of a corpus; `PairSet.counts` tells how many of each kind. The same arguments make the same pairs.

    Raises InvalidInput (`corpus_too_small`) when the documents give fewer than 64 different passages.
    """
    texts: set[str] = set()
    cut = [_Cut(one.title.strip(), _new(passages(one.text, options.passage_words), texts)) for one in documents]
    if len(texts) < LEAST_PASSAGES:
        raise InvalidInput(
            "corpus_too_small",
            f"The corpus has {len(cut):,} documents with {len(texts):,} different passages (of up to "
            f"{options.passage_words} words), and training needs at least {LEAST_PASSAGES}: that many short documents, "
            "or a few long ones. Add documents, or use the shipped encoder as it is.",
        )
    return PairSet.of(_Maker(cut, options, texts).pairs())


def _new(found: Iterable[Passage], texts: set[str]) -> list[Passage]:
    """Those whose text has not come before: what stands in every document asks for none of them."""
    new: list[Passage] = []
    for passage in found:
        if passage.text not in texts:
            texts.add(passage.text)
            new.append(passage)
    return new


@dataclass(frozen=True, slots=True)
class _Cut:
    title: str
    passages: list[Passage]


@dataclass
class _Chosen:
    """A passage that gets pairs: its place in the document, its text in all of them, the sentence that asks for it."""

    place: int
    passage: Passage
    text: str
    query: str


class _Maker:
    def __init__(self, cut: Sequence[_Cut], options: PairOptions, texts: set[str]) -> None:
        self._cut, self._options, self._texts = cut, options, len(texts)
        self._counts = passage_counts(texts)
        self._plain = function_words(self._counts, len(texts))
        self._titles = Counter(one.title.casefold() for one in cut)
        self._headings = Counter(h.casefold() for one in cut for h in {p.heading for p in one.passages})

    def pairs(self) -> Iterator[Pair]:
        for number, one in enumerate(self._cut):
            # by the document's place, so that one document more at the end changes nothing before it
            random = np.random.default_rng([self._options.seed, number])
            chosen = [
                self._choose(place, one.passages[place], random)
                for place in _spread(len(one.passages), self._options.per_document)
            ]
            # (of its own: how many numbers a draw of keywords takes follows the whole corpus)
            made = self._of_document(one, chosen, random, np.random.default_rng([self._options.seed, number, 1]))
            yield from (pair._replace(origin=str(pair.origin)) for pair in made if pair.origin in self._options.kinds)

    def _choose(self, place: int, passage: Passage, random: np.random.Generator) -> _Chosen:
        """Takes the sentence of inverse cloze out, nine times in ten, unless nothing would be left."""
        spans = sentence_spans(passage.text)
        asking = [(start, end, query) for start, end in spans if (query := self._query(passage.text[start:end]))]
        if len(spans) < 2 or not asking or Kind.INVERSE_CLOZE not in self._options.kinds:
            return _Chosen(place, passage, passage.text, "")
        start, end, query = asking[int(random.integers(len(asking)))]
        rest = f"{passage.text[:start].rstrip()} {passage.text[end:].lstrip()}".strip()
        removed = random.random() < self._options.removed and len(rest.split()) >= _LEAST_QUERY
        return _Chosen(place, passage, rest if removed else passage.text, query)

    def _of_document(
        self, one: _Cut, chosen: Sequence[_Chosen], random: np.random.Generator, drawing: np.random.Generator
    ) -> Iterator[Pair]:
        asks = bool(one.title) and self._titles[one.title.casefold()] <= _COMMON_TITLE
        opened = _opening(one.passages)
        opening = [query for passage in one.passages[:opened] for query in self._queries(passage.text)]
        for this in chosen:
            if asks:
                yield Pair(one.title, this.text, Kind.TITLE)
            if heading := self._asking_heading(one.title, this.passage.heading):
                yield Pair(heading, this.text, Kind.HEADING)
            if this.query:
                yield Pair(this.query, this.text, Kind.INVERSE_CLOZE)
            if opening and this.place >= opened:
                yield Pair(opening[int(random.integers(len(opening)))], this.text, Kind.BODY_FIRST)
            if keywords := self._keywords(this.text, drawing):
                yield Pair(keywords, this.text, Kind.KEYWORDS)

    def _asking_heading(self, title: str, heading: str) -> str:
        if not heading:
            return ""
        if title and title.casefold() != heading.casefold():
            return f"{title}: {heading}"
        return "" if self._headings[heading.casefold()] > _COMMON_TITLE else heading

    def _queries(self, text: str) -> list[str]:
        return [query for start, end in sentence_spans(text) if (query := self._query(text[start:end]))]

    def _query(self, sentence: str) -> str:
        """A sentence as a query; empty when it says too little or too much."""
        drop = self._options.drop_function_words
        kept = [word for word in words(sentence) if not (drop and word.lower() in self._plain)]
        if not _LEAST_QUERY <= len(kept) <= _MOST_QUERY:
            return ""
        return " ".join(kept) if drop else " ".join(sentence.split())

    def _keywords(self, text: str, random: np.random.Generator) -> str:
        """Two to five distinct words, the rarer the likelier, in the order in which they stand."""
        times = Counter(word.lower() for word in words(text))
        told = [word for word in times if word not in self._plain and len(word) > 1]
        if len(told) < 2:
            return ""
        # (a word is counted at least once, but for one that joins two halves where a sentence was)
        rarity = np.log((self._texts + 1) / np.array([max(1, self._counts[word]) for word in told]))
        # squared: a word of one passage in a thousand is drawn nine times as often as one of every tenth
        weight = rarity**2 * (1 + np.log([times[word] for word in told]))
        size = min(len(told), int(random.integers(2, 6)))
        drawn = random.choice(len(told), size, replace=False, p=weight / weight.sum())
        return " ".join(told[place] for place in sorted(drawn.tolist()))


def _opening(found: Sequence[Passage]) -> int:
    """How many passages the first section has; in a document without sections the first passage is it."""
    several = bool(found) and found[-1].section != found[0].section
    return sum(passage.section == found[0].section for passage in found) if several else 1


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of the places below `count`, evenly spread, the first among them."""
    return [place * count // most for place in range(most)] if count > most else list(range(count))
