"""Curation rules of an index, as an operator writes them: synonyms, results, terms, boosts and field weights.

Rules hold words, ids and filters but no vocabulary pieces, so they apply to every generation of the index, with any
encoder. The module also defines how rules compare words (`phrase_key`) and how phrases are found in a query
(`PhraseIndex`).
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from services.documents.document import validate_document_id
from services.errors import InvalidInput
from services.filters.parsing import OneFilterJson

MAX_PHRASE_WORDS = 8
MAX_QUERY_WORDS = 32
MAX_TEXT_CHARACTERS = 200
# Size of all rules of an index as JSON. They are read whole every two seconds.
MAX_RULES_BYTES = 256 * 1024
# Documents that all rules together may hide, because one query may have to exclude all of them.
MAX_HIDDEN_DOCUMENTS = 5000

_T = TypeVar("_T")

# In scripts without spaces each character is a word, as for WordPiece and Lucene's standard tokeniser.
_SINGLE_CHARACTER_WORDS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# A full stop or an apostrophe within a word does not end it (U.S., don't). These are the word boundaries of Unicode
# (UAX 29) and Lucene, so a query that is cut between words has the same terms as the whole query.
_WORD = re.compile(
    rf"[{_SINGLE_CHARACTER_WORDS}]|[^\W{_SINGLE_CHARACTER_WORDS}]+(?:['’.:][^\W{_SINGLE_CHARACTER_WORDS}]+)*"
)
_POSSESSIVE = re.compile(r"['’]s$")


def _check_words(text: str, max_words: int = MAX_PHRASE_WORDS) -> str:
    count = len(phrase_key(text))
    if not 1 <= count <= max_words:
        raise ValueError(f"1 to {max_words} words are needed, and {text[:80]!r} has {count}")
    return text


def _check_id(value: str) -> str:
    try:
        return validate_document_id(value)
    except InvalidInput as error:
        raise ValueError(error.detail) from None


RuleText = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS), AfterValidator(_check_words)]
DocumentId = Annotated[str, AfterValidator(_check_id)]


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True, populate_by_name=True)


class Synonym(_Rule):
    """Words with the same meaning (`words`), or words that are searched in addition to others (`from`, `to`).

    In lexical search a document counts by the best of the alternatives; in sparse search their pieces are added to the
    query. Rules do not apply to added words.
    """

    words: tuple[RuleText, ...] = Field((), max_length=20, description="two-way: each stands for all the others")
    from_: tuple[RuleText, ...] = Field((), alias="from", max_length=20, description="one-way: words of the query")
    to: tuple[RuleText, ...] = Field((), max_length=20, description="one-way: words that are searched as well")
    weight: float = Field(
        1.0, gt=0, le=10, strict=True, description="weight of the added words; the words of the query have 1"
    )

    @model_validator(mode="after")
    def _validate_direction(self) -> "Synonym":
        two_way, one_way = len(self.words) > 1, bool(self.from_ and self.to)
        if two_way == one_way or (self.words and (self.from_ or self.to)):
            raise ValueError("a synonym needs either two or more `words`, or `from` and `to`")
        if two_way and len({phrase_key(text) for text in self.words}) < 2:
            raise ValueError("two different `words` are required")
        return self


class Pin(_Rule):
    """A document that is shown at a fixed position."""

    id: DocumentId
    position: int = Field(ge=1, le=100, strict=True, description="1 is the first place")


class Results(_Rule):
    """Documents that are pinned or hidden for some queries or for every query."""

    query: Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)] = Field("", description="empty with `every`")
    match: Literal["exact", "contains", "every"] = Field(
        "exact", description="the query has exactly these words, contains them in this order, or is any query"
    )
    pin: tuple[Pin, ...] = Field(
        (), max_length=20, description="pins of the first page; the request's filter applies to them too"
    )
    hide: tuple[DocumentId, ...] = Field((), max_length=500, fail_fast=True)

    @model_validator(mode="after")
    def _validate_results(self) -> "Results":
        if (self.match == "every") == bool(self.query):
            raise ValueError("`query` is required unless `match` is `every`")
        if self.query:
            _check_words(self.query, MAX_QUERY_WORDS)
        if not self.pin and not self.hide:
            raise ValueError("a document to `pin` or to `hide` is required")
        pinned = [pin.id for pin in self.pin]
        if len(set(pinned)) < len(pinned) or len({pin.position for pin in self.pin}) < len(pinned):
            raise ValueError("a document or a position is pinned twice")
        if both := set(pinned) & set(self.hide):
            raise ValueError(f"{min(both)[:80]!r} is both pinned and hidden")
        return self


class Term(_Rule):
    """The weight of a word or phrase in this index, independent of the encoder's query table."""

    term: RuleText
    weight: float | None = Field(
        None,
        ge=0,
        le=1000,
        strict=True,
        description="weight of each of its pieces in the sparse list, on the scale of the query table",
    )
    factor: float = Field(
        1.0, ge=0, le=100, strict=True, description="factor of its weight in both lists; 0 removes it"
    )
    phrase: bool = Field(False, strict=True, description="lexical search requires its words side by side")

    @model_validator(mode="after")
    def _require_effect(self) -> "Term":
        if self.weight is None and self.factor == 1 and not self.phrase:
            raise ValueError("a `weight`, a `factor` or `phrase` is required")
        if self.weight is not None and self.factor != 1:
            raise ValueError("`weight` sets the weight of a piece and `factor` scales it: give only one of them")
        if self.phrase and len(phrase_key(self.term)) < 2:
            raise ValueError("a `phrase` needs two words or more")
        return self


class Boost(_Rule):
    """A factor of the score of some documents in each list."""

    filter: OneFilterJson = Field(description="filter of the documents, as in a search")
    factor: float = Field(
        ge=0.1, le=10, strict=True, description="the factors of several boosts of a document are multiplied"
    )

    @model_validator(mode="after")
    def _require_effect(self) -> "Boost":
        if self.factor == 1:
            raise ValueError("a `factor` of 1 changes nothing")
        return self


class Fields(_Rule):
    """The weight of fields in lexical search, relative to 1 for the text."""

    title: float = Field(
        1.0,
        ge=1,
        le=10,
        strict=True,
        description="weight of title words; more than 1 adds BM25 over titles",
    )


class Rules(_Rule):
    """All rules of an index. Where rules overlap in a query, the longest match wins, from left to right."""

    # A list ends at its first invalid rule: errors of 2,000 rules would take a second and 70 MB.
    synonyms: tuple[Synonym, ...] = Field((), max_length=2000, fail_fast=True)
    results: tuple[Results, ...] = Field((), max_length=2000, fail_fast=True)
    terms: tuple[Term, ...] = Field((), max_length=2000, fail_fast=True)
    boosts: tuple[Boost, ...] = Field((), max_length=20)
    fields: Fields = Fields()

    @model_validator(mode="after")
    def _validate_rules(self) -> "Rules":
        if sum(len(rule.hide) for rule in self.results) > MAX_HIDDEN_DOCUMENTS:
            raise ValueError(f"all rules together may hide at most {MAX_HIDDEN_DOCUMENTS:,} documents")
        seen: set[tuple[str, ...]] = set()
        for rule in self.terms:
            if phrase_key(rule.term) in seen:
                raise ValueError(f"the term {rule.term!r} has two rules")
            seen.add(phrase_key(rule.term))
        return self

    def stored(self) -> dict[str, Any]:
        """Return the rules as they are stored and compared, in JSON types, without default values."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


class QueryWord(NamedTuple):
    """A word in its compared form, and its position in the text (characters, end exclusive)."""

    text: str
    start: int
    end: int


def split_words(text: str) -> list[QueryWord]:
    """Return the words of a text, normalised in case and compatibility forms, without possessive 's. Accents stay."""
    return [QueryWord(_normalise_word(match[0]), match.start(), match.end()) for match in _WORD.finditer(text)]


def phrase_key(text: str) -> tuple[str, ...]:
    """Return the words of a text in order; texts with equal keys are the same for a rule."""
    return tuple([_normalise_word(word) for word in _WORD.findall(text)])


def _normalise_word(word: str) -> str:
    if word.isascii():
        plain = word.lower()
        return plain[:-2] if plain.endswith("'s") else plain
    return _POSSESSIVE.sub("", unicodedata.normalize("NFKC", word).casefold())


class PhraseMatch(NamedTuple, Generic[_T]):
    """Words `start` to `end` (exclusive) of a query, and the values of that phrase."""

    start: int
    end: int
    values: Sequence[_T]


class PhraseIndex(Generic[_T]):
    """An index from phrases to values.

    A look-up takes one step a word and one for each phrase length that can begin there.
    """

    def __init__(self, items: Iterable[tuple[tuple[str, ...], _T]]) -> None:
        self._values: dict[tuple[str, ...], list[_T]] = defaultdict(list)
        lengths: dict[str, set[int]] = defaultdict(set)
        for phrase, value in items:
            self._values[phrase].append(value)
            lengths[phrase[0]].add(len(phrase))
        self._lengths = {first: sorted(each, reverse=True) for first, each in lengths.items()}

    def at(self, text: Sequence[str]) -> Sequence[_T]:
        """Return the values of exactly this phrase."""
        return self._values.get(tuple(text), ())

    def longest(self, text: Sequence[str]) -> list[PhraseMatch[_T]]:
        """Return matches that do not overlap: from left to right, the longest phrase that begins at each word."""
        matches = []
        at = 0
        while at < len(text):
            match = next(self._from(text, at), None)
            if match is None:
                at += 1
            else:
                matches.append(match)
                at = match.end
        return matches

    def find_all(self, text: Sequence[str]) -> list[PhraseMatch[_T]]:
        """Return every phrase that the words contain, including overlapping ones."""
        return [match for at in range(len(text)) for match in self._from(text, at)]

    def _from(self, text: Sequence[str], at: int) -> Iterator[PhraseMatch[_T]]:
        for length in self._lengths.get(text[at], ()):
            values = self._values.get(tuple(text[at : at + length]))
            if values and at + length <= len(text):
                yield PhraseMatch(at, at + length, values)
