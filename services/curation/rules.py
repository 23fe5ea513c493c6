"""What an operator may say about an index: synonyms, results, terms, boosts. Rules are words, ids and filters, no piece
of a vocabulary among them, so they hold for every generation of the index, whatever encoder it has.

Words of a query as rules know them, and the phrases of rules that a query contains.
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

_T = TypeVar("_T")

# Scripts without spaces: each character counts as a word, as it does for WordPiece and for Lucene's standard tokeniser.
_SINGLE_CHARACTER_WORDS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# A stop or an apostrophe within a word does not end it (U.S., don't): Unicode's word boundaries (UAX 29), which Lucene
# follows, so that a query that is cut where words end has the same terms as before.
_WORD = re.compile(
    rf"[{_SINGLE_CHARACTER_WORDS}]|[^\W{_SINGLE_CHARACTER_WORDS}]+(?:['’.:][^\W{_SINGLE_CHARACTER_WORDS}]+)*"
)
_POSSESSIVE = re.compile(r"['’]s$")


class QueryWord(NamedTuple):
    """A word as it is compared, and where it stands in the text (characters, end exclusive)."""

    text: str
    start: int
    end: int


def split_words(text: str) -> list[QueryWord]:
    """The words of a text: compatible forms and cases made equal, without a possessive 's. Accents stay."""
    return [QueryWord(_normalise_word(found[0]), found.start(), found.end()) for found in _WORD.finditer(text)]


def phrase_key(text: str) -> tuple[str, ...]:
    """What makes two texts the same for a rule: their words in order."""
    return tuple([_normalise_word(word) for word in _WORD.findall(text)])


def _normalise_word(word: str) -> str:
    if word.isascii():
        plain = word.lower()
        return plain[:-2] if plain.endswith("'s") else plain
    return _POSSESSIVE.sub("", unicodedata.normalize("NFKC", word).casefold())


class PhraseMatch(NamedTuple, Generic[_T]):
    """Words `start` to `end` (exclusive) of a query, and what is held under them."""

    start: int
    end: int
    held: Sequence[_T]


class PhraseIndex(Generic[_T]):
    """Values under phrases. Looking costs a step a word and one more for each length that a phrase can have there."""

    def __init__(self, items: Iterable[tuple[tuple[str, ...], _T]]) -> None:
        self._held: dict[tuple[str, ...], list[_T]] = defaultdict(list)
        lengths: dict[str, set[int]] = defaultdict(set)
        for phrase, value in items:
            self._held[phrase].append(value)
            lengths[phrase[0]].add(len(phrase))
        self._lengths = {first: sorted(each, reverse=True) for first, each in lengths.items()}

    def at(self, text: Sequence[str]) -> Sequence[_T]:
        """What is held under exactly these words."""
        return self._held.get(tuple(text), ())

    def longest(self, text: Sequence[str]) -> list[PhraseMatch[_T]]:
        """Stretches that do not overlap: from left to right, the longest phrase that begins there."""
        found = []
        at = 0
        while at < len(text):
            here = next(self._from(text, at), None)
            if here is None:
                at += 1
            else:
                found.append(here)
                at = here.end
        return found

    def everywhere(self, text: Sequence[str]) -> list[PhraseMatch[_T]]:
        """Every phrase that the words contain, wherever it stands."""
        return [here for at in range(len(text)) for here in self._from(text, at)]

    def _from(self, text: Sequence[str], at: int) -> Iterator[PhraseMatch[_T]]:
        for length in self._lengths.get(text[at], ()):
            held = self._held.get(tuple(text[at : at + length]))
            if held and at + length <= len(text):
                yield PhraseMatch(at, at + length, held)


MAX_PHRASE_WORDS = 8
MAX_QUERY_WORDS = 32
MAX_TEXT_CHARACTERS = 200
# Of all rules of an index as JSON: they are read whole every two seconds.
MAX_RULES_BYTES = 256 * 1024
# Documents that all rules together hide: any query may be asked to leave out all of them.
MAX_HIDDEN_DOCUMENTS = 5000


def _check_words(text: str, most: int = MAX_PHRASE_WORDS) -> str:
    found = len(phrase_key(text))
    if not 1 <= found <= most:
        raise ValueError(f"1 to {most} words are needed, and {text[:80]!r} has {found}")
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
    """Words that mean the same (`words`), or that are to be found as well where others are asked for (`from`, `to`).

    Of several alternatives a document counts by the best one in keyword search; for the sparse list their pieces are
    added to the query. What is added is not looked up in the rules again.
    """

    words: tuple[RuleText, ...] = Field((), max_length=20, description="two-way: each one stands for all")
    from_: tuple[RuleText, ...] = Field((), alias="from", max_length=20, description="one-way: what is asked for")
    to: tuple[RuleText, ...] = Field((), max_length=20, description="one-way: what is searched for as well")
    weight: float = Field(
        1.0, gt=0, le=10, strict=True, description="of what is added, beside 1 for the user's own words"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "Synonym":
        two_way, one_way = len(self.words) > 1, bool(self.from_ and self.to)
        if two_way == one_way or (self.words and (self.from_ or self.to)):
            raise ValueError("a synonym has either two or more `words`, or `from` and `to`")
        if two_way and len({phrase_key(text) for text in self.words}) < 2:
            raise ValueError("two different `words` are needed")
        return self


class Pin(_Rule):
    """A document that is shown at a place."""

    id: DocumentId
    position: int = Field(ge=1, le=100, strict=True, description="1 is the first place")


class Results(_Rule):
    """Documents that are shown at given places, or not at all, for some queries or for every one."""

    query: Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)] = Field("", description="empty with `every`")
    match: Literal["exact", "contains", "every"] = Field(
        "exact", description="the query has these words and no others, has them in this order, or is any"
    )
    pin: tuple[Pin, ...] = Field((), max_length=20, description="on the first page, where the request's filter allows")
    hide: tuple[DocumentId, ...] = Field((), max_length=500)

    @model_validator(mode="after")
    def _whole(self) -> "Results":
        if (self.match == "every") == bool(self.query):
            raise ValueError("`query` is needed, but for `match` every")
        if self.query:
            _check_words(self.query, MAX_QUERY_WORDS)
        if not self.pin and not self.hide:
            raise ValueError("something to `pin` or to `hide` is needed")
        pinned = [pin.id for pin in self.pin]
        if len(set(pinned)) < len(pinned) or len({pin.position for pin in self.pin}) < len(pinned):
            raise ValueError("each document is pinned once, and each place is taken once")
        if both := set(pinned) & set(self.hide):
            raise ValueError(f"{min(both)[:80]!r} is pinned and hidden")
        return self


class Term(_Rule):
    """What a word or a phrase counts in this index, whatever the encoder's query table says."""

    term: RuleText
    weight: float | None = Field(
        None,
        ge=0,
        le=1000,
        strict=True,
        description="of each of its pieces in the sparse list, on the scale of the query table",
    )
    factor: float = Field(1.0, ge=0, le=100, strict=True, description="of its weight in both lists; 0 leaves it out")
    phrase: bool = Field(
        False, strict=True, description="keyword search finds it only as it stands, its words side by side"
    )

    @model_validator(mode="after")
    def _says_something(self) -> "Term":
        if self.weight is None and self.factor == 1 and not self.phrase:
            raise ValueError("a `weight`, a `factor` or `phrase` is needed")
        if self.weight is not None and self.factor != 1:
            raise ValueError("`weight` says what a piece counts and `factor` changes it: give one of them")
        if self.phrase and len(phrase_key(self.term)) < 2:
            raise ValueError("a `phrase` has two words or more")
        return self


class Boost(_Rule):
    """Documents that count more, or less, than their words say: a factor of their score in each list."""

    filter: OneFilterJson = Field(description="which documents, by their declared metadata, as in a search")
    factor: float = Field(
        ge=0.1, le=10, strict=True, description="of several boosts of a document, their product counts"
    )

    @model_validator(mode="after")
    def _says_something(self) -> "Boost":
        if self.factor == 1:
            raise ValueError("a `factor` of 1 changes nothing")
        return self


class Fields(_Rule):
    """What the words of a field count in keyword search, beside 1 for those of the text."""

    title: float = Field(
        1.0,
        ge=1,
        le=10,
        strict=True,
        description="as often as this the words of the title count; more than 1 adds BM25 of titles",
    )


class Rules(_Rule):
    """All rules of an index. Of rules that overlap in a query the longest holds, from left to right."""

    synonyms: tuple[Synonym, ...] = Field((), max_length=2000)
    results: tuple[Results, ...] = Field((), max_length=2000)
    terms: tuple[Term, ...] = Field((), max_length=2000)
    boosts: tuple[Boost, ...] = Field((), max_length=20)
    fields: Fields = Fields()

    @model_validator(mode="after")
    def _few(self) -> "Rules":
        if sum(len(rule.hide) for rule in self.results) > MAX_HIDDEN_DOCUMENTS:
            raise ValueError(f"all rules together may hide {MAX_HIDDEN_DOCUMENTS:,} documents")
        seen: set[tuple[str, ...]] = set()
        for rule in self.terms:
            if phrase_key(rule.term) in seen:
                raise ValueError(f"the term {rule.term!r} has two rules")
            seen.add(phrase_key(rule.term))
        return self

    def stored(self) -> dict[str, Any]:
        """As they are stored and compared, in JSON's types: what was not said is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
