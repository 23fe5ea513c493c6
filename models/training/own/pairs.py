"""Pairs from a corpus without queries: a part of a document becomes the query of one of its passages.

* `title`: the title, for passages of the document;
* `heading`: title and heading, for the section below it;
* `inverse-cloze`: a sentence, for its paragraph, which loses the sentence nine times in ten (arXiv 1906.00300, 3.3; the
  tenth keeps it so that the encoder learns exact words too);
* `body-first`: a sentence of the first section, for another passage of the page (arXiv 2002.03932, 3.2);
* `keywords`: a few rare words of a passage, for the passage, as people type them.

A passage has the same text in all its pairs. If a pair had the text without the sentence and another pair had the whole
text, each text would be a false negative of the other pair's queries.

Queries that are cut out of their passage taught an earlier encoder function words: the weight of "about" in its query
table rose fivefold, because a sentence and its paragraph share such words as surely as their subject. People type few
of them, so these queries drop function words: a list for English, and words that most of a corpus's passages have.
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
# In a smaller corpus a batch holds most passages, and held-out figures are noise.
MIN_CORPUS_PASSAGES = 64
_LEAST_QUERY, _MOST_QUERY = 3, 32  # words of a sentence that becomes a query
_COMMON_TITLE = 3  # a title or heading of more documents or sections is not a query: "Introduction"
# In fewer passages the share of a word is not reliable.
_MIN_PASSAGES = 200
_MAX_PASSAGE_SHARE = 0.4
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


class PairKind(StrEnum):
    """Kind of a pair: its origin in the pair set."""

    TITLE = "title"
    HEADING = "heading"
    INVERSE_CLOZE = "inverse-cloze"
    BODY_FIRST = "body-first"
    KEYWORDS = "keywords"


@dataclass(frozen=True, slots=True)
class PairOptions:
    """Options of pairs from a corpus. Raises InvalidInput (`bad_pair_options`).

    `drop_function_words` applies to queries that are cut out of a text, see `find_function_words`. `per_document`
    passages of a document get pairs: the first, and others evenly spread. `removed` is how often inverse cloze removes
    the sentence from its paragraph.
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
                "Pairs need at least one kind, passages of 20 words or more, 1 or more passages a document, and a "
                f"removed share between 0 and 1: {self}.",
            )


def make_own_pairs(
    documents: Iterable[Document], options: PairOptions, sources: dict[str, int] | None = None
) -> PairSet:
    """Make the pairs of a corpus. `PairSet.counts` counts each kind; the same arguments make the same pairs.

    `sources` receives, for each passage, the number of its document in `documents`, from 0.

    Raises InvalidInput (`corpus_too_small`) when the documents have fewer than 64 different passages.
    """
    texts: set[str] = set()
    cut = [
        _CutDocument(document.title.strip(), _new_passages(split_passages(document.text, options.passage_words), texts))
        for document in documents
    ]
    if len(texts) < MIN_CORPUS_PASSAGES:
        raise InvalidInput(
            "corpus_too_small",
            f"The corpus has {len(cut):,} documents with {len(texts):,} different passages (of up to "
            f"{options.passage_words} words), and the command needs at least {MIN_CORPUS_PASSAGES}: many short "
            "documents, or a few long ones. Add documents, or use the shipped encoder as it is.",
        )
    return PairSet.of(_PairMaker(cut, options, texts, {} if sources is None else sources).pairs())


def _new_passages(passages: Iterable[DocumentPassage], texts: set[str]) -> list[DocumentPassage]:
    """Return the passages whose text is new: a text that every document has identifies none of them."""
    new: list[DocumentPassage] = []
    for passage in passages:
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
    """A passage that gets pairs: its position in the document, its text in all pairs, the query of inverse cloze."""

    position: int
    passage: DocumentPassage
    text: str
    query: str


class _PairMaker:
    def __init__(
        self, cut: Sequence[_CutDocument], options: PairOptions, texts: set[str], sources: dict[str, int]
    ) -> None:
        self._cut, self._options, self._texts, self._sources = cut, options, len(texts), sources
        self._counts = count_passages(texts)
        self._plain = find_function_words(self._counts, len(texts))
        self._titles = Counter(document.title.casefold() for document in cut)
        self._headings = Counter(
            heading.casefold() for document in cut for heading in {passage.heading for passage in document.passages}
        )

    def pairs(self) -> Iterator[Pair]:
        for number, document in enumerate(self._cut):
            # seeded by the document's position: a document added at the end changes no earlier pair
            random = np.random.default_rng([self._options.seed, number])
            chosen = [
                self._choose(position, document.passages[position], random)
                for position in _spread_evenly(len(document.passages), self._options.per_document)
            ]
            self._sources |= {selected.text: number for selected in chosen}
            # a second generator, because the number of draws for keywords depends on the whole corpus
            keyword_random = np.random.default_rng([self._options.seed, number, 1])
            pairs = self._of_document(document, chosen, random, keyword_random)
            yield from (pair._replace(origin=str(pair.origin)) for pair in pairs if pair.origin in self._options.kinds)

    def _choose(self, position: int, passage: DocumentPassage, random: np.random.Generator) -> _ChosenPassage:
        """Remove the sentence of inverse cloze, nine times in ten, unless too little text would be left."""
        spans = find_sentence_spans(passage.text)
        queries = [(start, end, query) for start, end in spans if (query := self._query(passage.text[start:end]))]
        if len(spans) < 2 or not queries or PairKind.INVERSE_CLOZE not in self._options.kinds:
            return _ChosenPassage(position, passage, passage.text, "")
        start, end, query = queries[int(random.integers(len(queries)))]
        rest = f"{passage.text[:start].rstrip()} {passage.text[end:].lstrip()}".strip()
        removed = random.random() < self._options.removed and len(rest.split()) >= _LEAST_QUERY
        return _ChosenPassage(position, passage, rest if removed else passage.text, query)

    def _of_document(
        self,
        document: _CutDocument,
        chosen: Sequence[_ChosenPassage],
        random: np.random.Generator,
        keyword_random: np.random.Generator,
    ) -> Iterator[Pair]:
        use_title = bool(document.title) and self._titles[document.title.casefold()] <= _COMMON_TITLE
        opening_passages = _count_opening_passages(document.passages)
        opening_queries = [
            query for passage in document.passages[:opening_passages] for query in self._queries(passage.text)
        ]
        for selected in chosen:
            if use_title:
                yield Pair(document.title, selected.text, PairKind.TITLE)
            if heading := self._asking_heading(document.title, selected.passage.heading):
                yield Pair(heading, selected.text, PairKind.HEADING)
            if selected.query:
                yield Pair(selected.query, selected.text, PairKind.INVERSE_CLOZE)
            if opening_queries and selected.position >= opening_passages:
                yield Pair(
                    opening_queries[int(random.integers(len(opening_queries)))], selected.text, PairKind.BODY_FIRST
                )
            if keywords := self._keywords(selected.text, keyword_random):
                yield Pair(keywords, selected.text, PairKind.KEYWORDS)

    def _asking_heading(self, title: str, heading: str) -> str:
        if not heading:
            return ""
        if title and title.casefold() != heading.casefold():
            return f"{title}: {heading}"
        return "" if self._headings[heading.casefold()] > _COMMON_TITLE else heading

    def _queries(self, text: str) -> list[str]:
        return [query for start, end in find_sentence_spans(text) if (query := self._query(text[start:end]))]

    def _query(self, sentence: str) -> str:
        """Return a sentence as a query; empty when it is too short or too long."""
        drop = self._options.drop_function_words
        kept = [word for word in split_words(sentence) if not (drop and word.lower() in self._plain)]
        if not _LEAST_QUERY <= len(kept) <= _MOST_QUERY:
            return ""
        return " ".join(kept) if drop else " ".join(sentence.split())

    def _keywords(self, text: str, random: np.random.Generator) -> str:
        """Return two to five distinct words in their order; rarer words are likelier."""
        counts = Counter(word.lower() for word in split_words(text))
        candidates = [word for word in counts if word not in self._plain and len(word) > 1]
        if len(candidates) < 2:
            return ""
        # A removed sentence can join two word halves into a word that no passage has.
        rarity = np.log((self._texts + 1) / np.array([max(1, self._counts[word]) for word in candidates]))
        # squared: a word in one of a thousand passages is drawn nine times as often as a word in every tenth
        weight = rarity**2 * (1 + np.log([counts[word] for word in candidates]))
        size = min(len(candidates), int(random.integers(2, 6)))
        drawn = random.choice(len(candidates), size, replace=False, p=weight / weight.sum())
        return " ".join(candidates[position] for position in sorted(drawn.tolist()))


def _count_opening_passages(passages: Sequence[DocumentPassage]) -> int:
    """Count the passages of the first section; a document without sections has one opening passage."""
    has_sections = bool(passages) and passages[-1].section != passages[0].section
    return sum(passage.section == passages[0].section for passage in passages) if has_sections else 1


def _spread_evenly(count: int, limit: int) -> list[int]:
    """Return at most `limit` positions below `count`, evenly spread, with the first among them."""
    return [position * count // limit for position in range(limit)] if count > limit else list(range(count))


def split_words(text: str) -> list[str]:
    """Return the words of a text, with hyphens and apostrophes inside them."""
    return WORD_PATTERN.findall(text)


def count_passages(passages: Collection[str]) -> Counter[str]:
    """Count for each word in lower case the passages that have it."""
    counts: Counter[str] = Counter()
    for passage in passages:
        counts.update({word.lower() for word in split_words(passage)})
    return counts


def find_function_words(counts: Counter[str], passages: int) -> frozenset[str]:
    """Return English function words, and from 200 passages on the words that more than 40 % of the passages have."""
    if passages < _MIN_PASSAGES:
        return ENGLISH_FUNCTION_WORDS
    return ENGLISH_FUNCTION_WORDS | {word for word, count in counts.items() if count > _MAX_PASSAGE_SHARE * passages}


def find_corpus_file(path: Path) -> Path:
    """Return the file, or the corpus.jsonl of a directory. Raises ConfigurationError (`corpus_not_found`)."""
    if path.is_dir():
        file = next((path / name for name in _CORPUS_FILES if (path / name).is_file()), None)
        if file is None:
            raise ConfigurationError("corpus_not_found", f"{path} has no corpus.jsonl, compressed or not.")
        return file
    if not path.is_file():
        raise ConfigurationError(
            "corpus_not_found", f"There is no file {path}. A corpus is JSON lines with id, title and text."
        )
    return path


def corpus_name(path: Path) -> str:
    """Return the name of a corpus: of its file's directory. Raises ConfigurationError (`corpus_not_found`)."""
    return find_corpus_file(path).resolve().parent.name


def read_corpus(path: Path, report: ReadReport | None = None) -> Iterator[Document]:
    """Read the documents of a file or directory as a stream: {"id" or "_id", "title", "text"} a line.

    The form is that of `sparsewell load` and of collections in BEIR's layout. A document without a text has its title
    as text. Invalid lines, lines without text and repeated ids are counted in `report` and skipped. Raises
    ConfigurationError (`corpus_not_found`, `unreadable_file`), InvalidInput: `damaged_file`, and `no_documents` when no
    line is valid.
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
    # training does not need ids, so a line without one gets its number
    name = f"line {number}" if identifier in (None, "") else str(identifier)
    return Document(name, text, title) if text else Document(name, title)
