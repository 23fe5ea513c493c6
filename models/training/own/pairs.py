"""Pairs out of documents that nobody asked about: what stands in a document asks for a passage of it.

* `title`: the title for passages of the document;
* `heading`: title and heading for the section below it;
* `inverse-cloze`: a sentence for its paragraph, from which it is removed nine times in ten (arXiv 1906.00300, 3.3; kept
  in the tenth so that exact words are learned too);
* `body-first`: a sentence of the first section for another passage of the page (arXiv 2002.03932, 3.2);
* `keywords`: a few rare words of a passage for it, as people type them.

A passage has one text in all its pairs: if the one without its sentence stood beside the whole one, each would be a
false negative of the other's queries.

A corpus without queries: documents as `sparsewell load` takes them, or a collection in BEIR's layout.

Words that tell nothing about a passage: a list for English, and those that most of a corpus has.

Queries that are cut out of the passage they belong to taught an earlier encoder function words: the weight of "about"
in its query table rose fivefold, since a sentence and its paragraph share such words as surely as their subject. What
people type has few of them. So cut-out queries go without.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from models.training.own.sections import DocumentPassage, find_sentence_spans, split_passages
from models.training.pairs import Pair, PairSet
from models.training.storage import ReadReport, read_objects, read_text_member
from services.documents.document import Document
from services.errors import ConfigurationError, InvalidInput

_CORPUS_FILES = ("corpus.jsonl", "corpus.jsonl.gz", "corpus.jsonl.bz2", "corpus.jsonl.xz", "corpus.jsonl.zst")


def find_corpus_file(path: Path) -> Path:
    """The file itself, or the corpus.jsonl of a directory. Raises ConfigurationError (`corpus_not_found`)."""
    if path.is_dir():
        found = next((path / name for name in _CORPUS_FILES if (path / name).is_file()), None)
        if found is None:
            raise ConfigurationError("corpus_not_found", f"{path} has no corpus.jsonl (packed or not).")
        return found
    if not path.is_file():
        raise ConfigurationError(
            "corpus_not_found", f"There is no file {path}. A corpus is JSON lines with id, title and text."
        )
    return path


def read_corpus(path: Path, report: ReadReport | None = None) -> Iterator[Document]:
    """The documents of a file or directory, as a stream: {"id" or "_id", "title", "text"} a line.

    A document with a title only is its title. Lines that are none, have no text, or an id that came before, are
    counted in `report` and skipped. Raises ConfigurationError (`corpus_not_found`, `unreadable_file`), InvalidInput:
    `damaged_file`, and `no_documents` when no line is one.
    """
    file = find_corpus_file(path)
    report = ReadReport(str(file)) if report is None else report
    seen: set[str] = set()
    for number, record in read_objects(file, report):
        try:
            document = _parse_document(record, number)
            if document.id in seen:
                raise InvalidInput("duplicate_id", f"the id {document.id[:80]!r} came before")
        except InvalidInput as error:
            report.refuse(number, error)
        else:
            seen.add(document.id)
            report.taken += 1
            yield document
    if not report.taken:
        raise InvalidInput(
            "no_documents",
            f'{file} has no documents: each line is {{"id": "...", "title": "...", "text": "..."}}. '
            + (f"The first lines: {'; '.join(report.examples)}." if report.examples else "The file is empty."),
        )


def _parse_document(record: Mapping[str, Any], number: int) -> Document:
    title = read_text_member(record, "title", required=False)
    text = read_text_member(record, "text", required=not title)
    identifier = record.get("id", record.get("_id"))
    if identifier is not None and (isinstance(identifier, bool) or not isinstance(identifier, str | int)):
        raise InvalidInput("wrong_type", f"`id` is {type(identifier).__name__}, not a string")
    # (ids name documents in an index; what is learned does not need them)
    name = f"line {number}" if identifier in (None, "") else str(identifier)
    return Document(name, text, title) if text else Document(name, title)


WORD_PATTERN = re.compile(r"\w+(?:['’-]\w+)*")

ENGLISH_FUNCTION_WORDS = frozenset(
    """
    a about above across after again against all almost along already also although always am among an and another
    any anyone anything are aren't around as at away back be became because become becomes been before being below
    between both but by came can can't cannot could couldn't did didn't do does doesn't doing don't done down due
    during each either else enough etc even ever every everyone everything few for from further gave get gets
    getting give given gives go goes going gone got had hadn't has hasn't have haven't having he he's her here hers
    herself him himself his how however i i'd i'll i'm i've if in indeed instead into is isn't it it's its itself
    just keep kept know least less let let's like made make makes making many may maybe me might mine more most much
    must my myself near neither never no nobody none nor not nothing now of off often oh on once one only onto or
    other others our ours ourselves out over own per perhaps put quite rather really said same say says see seem
    seemed seems seen several shall she she's should shouldn't since so some someone something sometimes soon still
    such take taken than that that's the their theirs them themselves then there there's therefore these they
    they're they've thing things think this those though through thus till to together too took toward towards under
    until up upon us use used uses using usually very via want wants was wasn't way we we're we've well went were
    weren't what what's when whenever where whereas wherever whether which while who who's whole whom whose why will
    with within without won't would wouldn't yes yet you you'd you'll you're you've your yours yourself yourselves
    """.split()  # noqa: SIM905 - a paragraph of words, not three hundred strings
)
# Of fewer passages than this the share of one word says little.
_MIN_PASSAGES = 200
_MAX_PASSAGE_SHARE = 0.4


def split_words(text: str) -> list[str]:
    """The words of a text as they stand, hyphens and apostrophes inside them kept."""
    return WORD_PATTERN.findall(text)


def count_passages(passages: Collection[str]) -> Counter[str]:
    """For each word in lower case the number of passages that have it."""
    counts: Counter[str] = Counter()
    for passage in passages:
        counts.update({word.lower() for word in split_words(passage)})
    return counts


def find_function_words(counts: Counter[str], passages: int) -> frozenset[str]:
    """English ones, and in a corpus of 200 passages or more the words that more than 40 % of them have."""
    if passages < _MIN_PASSAGES:
        return ENGLISH_FUNCTION_WORDS
    return ENGLISH_FUNCTION_WORDS | {word for word, count in counts.items() if count > _MAX_PASSAGE_SHARE * passages}


# Below this a batch holds most of the corpus, and a held-out part has no figure worth the name.
MIN_CORPUS_PASSAGES = 64
_LEAST_QUERY, _MOST_QUERY = 3, 32  # words of a sentence that becomes a query
_COMMON_TITLE = 3  # documents or sections; "Introduction" asks for nothing


class PairKind(StrEnum):
    """How a pair was made: its origin in the pair set."""

    TITLE = "title"
    HEADING = "heading"
    INVERSE_CLOZE = "inverse-cloze"
    BODY_FIRST = "body-first"
    KEYWORDS = "keywords"


@dataclass(frozen=True, slots=True)
class PairOptions:
    """`drop_function_words`: from queries that are cut out of a text, see `find_function_words` for why.

    `per_document` passages of a document, evenly spread and the first among them, get pairs. `removed` is how often
    the sentence of inverse cloze leaves its paragraph.
    """

    kinds: tuple[PairKind, ...] = tuple(PairKind)
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


def make_own_pairs(documents: Iterable[Document], options: PairOptions) -> PairSet:
    """The pairs of a corpus; `PairSet.counts` tells how many of each kind. The same arguments make the same pairs.

    Raises InvalidInput (`corpus_too_small`) when the documents give fewer than 64 different passages.
    """
    texts: set[str] = set()
    cut = [
        _CutDocument(one.title.strip(), _new_passages(split_passages(one.text, options.passage_words), texts))
        for one in documents
    ]
    if len(texts) < MIN_CORPUS_PASSAGES:
        raise InvalidInput(
            "corpus_too_small",
            f"The corpus has {len(cut):,} documents with {len(texts):,} different passages (of up to "
            f"{options.passage_words} words), and training needs at least {MIN_CORPUS_PASSAGES}: that many short documents, "
            "or a few long ones. Add documents, or use the shipped encoder as it is.",
        )
    return PairSet.of(_PairMaker(cut, options, texts).pairs())


def _new_passages(found: Iterable[DocumentPassage], texts: set[str]) -> list[DocumentPassage]:
    """Those whose text has not come before: what stands in every document asks for none of them."""
    new: list[DocumentPassage] = []
    for passage in found:
        if passage.text not in texts:
            texts.add(passage.text)
            new.append(passage)
    return new


@dataclass(frozen=True, slots=True)
class _CutDocument:
    title: str
    passages: list[DocumentPassage]


@dataclass
class _ChosenPassage:
    """A passage that gets pairs: its place in the document, its text in all of them, the sentence that asks for it."""

    place: int
    passage: DocumentPassage
    text: str
    query: str


class _PairMaker:
    def __init__(self, cut: Sequence[_CutDocument], options: PairOptions, texts: set[str]) -> None:
        self._cut, self._options, self._texts = cut, options, len(texts)
        self._counts = count_passages(texts)
        self._plain = find_function_words(self._counts, len(texts))
        self._titles = Counter(one.title.casefold() for one in cut)
        self._headings = Counter(h.casefold() for one in cut for h in {p.heading for p in one.passages})

    def pairs(self) -> Iterator[Pair]:
        for number, one in enumerate(self._cut):
            # by the document's place, so that one document more at the end changes nothing before it
            random = np.random.default_rng([self._options.seed, number])
            chosen = [
                self._choose(place, one.passages[place], random)
                for place in _spread_evenly(len(one.passages), self._options.per_document)
            ]
            # (of its own: how many numbers a draw of keywords takes follows the whole corpus)
            made = self._of_document(one, chosen, random, np.random.default_rng([self._options.seed, number, 1]))
            yield from (pair._replace(origin=str(pair.origin)) for pair in made if pair.origin in self._options.kinds)

    def _choose(self, place: int, passage: DocumentPassage, random: np.random.Generator) -> _ChosenPassage:
        """Takes the sentence of inverse cloze out, nine times in ten, unless nothing would be left."""
        spans = find_sentence_spans(passage.text)
        asking = [(start, end, query) for start, end in spans if (query := self._query(passage.text[start:end]))]
        if len(spans) < 2 or not asking or PairKind.INVERSE_CLOZE not in self._options.kinds:
            return _ChosenPassage(place, passage, passage.text, "")
        start, end, query = asking[int(random.integers(len(asking)))]
        rest = f"{passage.text[:start].rstrip()} {passage.text[end:].lstrip()}".strip()
        removed = random.random() < self._options.removed and len(rest.split()) >= _LEAST_QUERY
        return _ChosenPassage(place, passage, rest if removed else passage.text, query)

    def _of_document(
        self,
        one: _CutDocument,
        chosen: Sequence[_ChosenPassage],
        random: np.random.Generator,
        drawing: np.random.Generator,
    ) -> Iterator[Pair]:
        asks = bool(one.title) and self._titles[one.title.casefold()] <= _COMMON_TITLE
        opened = _count_opening_passages(one.passages)
        opening = [query for passage in one.passages[:opened] for query in self._queries(passage.text)]
        for this in chosen:
            if asks:
                yield Pair(one.title, this.text, PairKind.TITLE)
            if heading := self._asking_heading(one.title, this.passage.heading):
                yield Pair(heading, this.text, PairKind.HEADING)
            if this.query:
                yield Pair(this.query, this.text, PairKind.INVERSE_CLOZE)
            if opening and this.place >= opened:
                yield Pair(opening[int(random.integers(len(opening)))], this.text, PairKind.BODY_FIRST)
            if keywords := self._keywords(this.text, drawing):
                yield Pair(keywords, this.text, PairKind.KEYWORDS)

    def _asking_heading(self, title: str, heading: str) -> str:
        if not heading:
            return ""
        if title and title.casefold() != heading.casefold():
            return f"{title}: {heading}"
        return "" if self._headings[heading.casefold()] > _COMMON_TITLE else heading

    def _queries(self, text: str) -> list[str]:
        return [query for start, end in find_sentence_spans(text) if (query := self._query(text[start:end]))]

    def _query(self, sentence: str) -> str:
        """A sentence as a query; empty when it says too little or too much."""
        drop = self._options.drop_function_words
        kept = [word for word in split_words(sentence) if not (drop and word.lower() in self._plain)]
        if not _LEAST_QUERY <= len(kept) <= _MOST_QUERY:
            return ""
        return " ".join(kept) if drop else " ".join(sentence.split())

    def _keywords(self, text: str, random: np.random.Generator) -> str:
        """Two to five distinct words, the rarer the likelier, in the order in which they stand."""
        times = Counter(word.lower() for word in split_words(text))
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


def _count_opening_passages(found: Sequence[DocumentPassage]) -> int:
    """How many passages the first section has; in a document without sections the first passage is it."""
    several = bool(found) and found[-1].section != found[0].section
    return sum(passage.section == found[0].section for passage in found) if several else 1


def _spread_evenly(count: int, most: int) -> list[int]:
    """At most `most` of the places below `count`, evenly spread, the first among them."""
    return [place * count // most for place in range(most)] if count > most else list(range(count))
