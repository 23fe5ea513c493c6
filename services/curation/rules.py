"""What an operator may say about an index: synonyms, results, terms, boosts. Rules are words, ids and filters, no piece
of a vocabulary among them, so they hold for every generation of the index, whatever encoder it has."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from services.curation.words import key
from services.documents import checked_id
from services.errors import InvalidInput
from services.filters.form import OneFilterJson

MAX_WORDS = 8
MAX_QUERY_WORDS = 32
MAX_TEXT = 200
# Of all rules of an index as JSON: they are read whole every two seconds.
MAX_BYTES = 256 * 1024
# Documents that all rules together hide: any query may be asked to leave out all of them.
MAX_HIDDEN = 5000


def _some_words(text: str, most: int = MAX_WORDS) -> str:
    found = len(key(text))
    if not 1 <= found <= most:
        raise ValueError(f"1 to {most} words are needed, and {text[:80]!r} has {found}")
    return text


def _an_id(value: str) -> str:
    try:
        return checked_id(value)
    except InvalidInput as error:
        raise ValueError(error.detail) from None


Words = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_some_words)]
DocumentId = Annotated[str, AfterValidator(_an_id)]


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True, populate_by_name=True)


class Synonym(_Rule):
    """Words that mean the same (`words`), or that are to be found as well where others are asked for (`from`, `to`).

    Of several alternatives a document counts by the best one in keyword search; for the sparse list their pieces are
    added to the query. What is added is not looked up in the rules again.
    """

    words: tuple[Words, ...] = Field((), max_length=20, description="two-way: each one stands for all")
    from_: tuple[Words, ...] = Field((), alias="from", max_length=20, description="one-way: what is asked for")
    to: tuple[Words, ...] = Field((), max_length=20, description="one-way: what is searched for as well")
    weight: float = Field(
        1.0, gt=0, le=10, strict=True, description="of what is added, beside 1 for the user's own words"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "Synonym":
        two_way, one_way = len(self.words) > 1, bool(self.from_ and self.to)
        if two_way == one_way or (self.words and (self.from_ or self.to)):
            raise ValueError("a synonym has either two or more `words`, or `from` and `to`")
        if two_way and len({key(text) for text in self.words}) < 2:
            raise ValueError("two different `words` are needed")
        return self


class Pin(_Rule):
    """A document that is shown at a place."""

    id: DocumentId
    position: int = Field(ge=1, le=100, strict=True, description="1 is the first place")


class Results(_Rule):
    """Documents that are shown at given places, or not at all, for some queries or for every one."""

    query: Annotated[str, Field(max_length=MAX_TEXT)] = Field("", description="empty with `every`")
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
            _some_words(self.query, MAX_QUERY_WORDS)
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

    term: Words
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
        if self.phrase and len(key(self.term)) < 2:
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
        if sum(len(rule.hide) for rule in self.results) > MAX_HIDDEN:
            raise ValueError(f"all rules together may hide {MAX_HIDDEN:,} documents")
        seen: set[tuple[str, ...]] = set()
        for rule in self.terms:
            if key(rule.term) in seen:
                raise ValueError(f"the term {rule.term!r} has two rules")
            seen.add(key(rule.term))
        return self

    def stored(self) -> dict[str, Any]:
        """As they are stored and compared, in JSON's types: what was not said is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
