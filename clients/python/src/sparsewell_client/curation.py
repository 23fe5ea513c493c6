"""Rules of an index (synonyms, results, terms, boosts), their versions and dry runs."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from sparsewell_client.search_answer import CurationApplied
from sparsewell_client.search_request import Filter, RequestModel


class Synonym(RequestModel):
    """A two-way synonym (`words`), or a one-way synonym (`from`, `to`)."""

    words: list[str] = Field(default=[], description="two-way: each stands for all others")
    from_: list[str] = Field(default=[], alias="from", description="one-way: words of the query")
    to: list[str] = Field(default=[], description="one-way: words that are searched for as well")
    weight: float = Field(1.0, description="weight of the added words; the user's own words have 1")


class Pin(RequestModel):
    """A document at a fixed position."""

    id: str
    position: int = Field(description="from 1")


class Results(RequestModel):
    """Documents that are pinned or hidden for some queries, or for all."""

    query: str = Field("", description="empty with `every`")
    match: Literal["exact", "contains", "every"] = Field(
        "exact", description="the query has exactly these words, contains them in this order, or is any query"
    )
    pin: list[Pin] = Field(default=[], description="on the first page, when the request's filter allows it")
    hide: list[str] = Field(default=[], description="ids of documents")


class Term(RequestModel):
    """The weight of a word or phrase in this index."""

    term: str
    weight: float | None = Field(None, description="sparse list: weight of each piece, on the query table's scale")
    factor: float = Field(1.0, description="factor of its weight in both lists; 0 removes it")
    phrase: bool = Field(False, description="lexical list: match its words only side by side")


class Boost(RequestModel):
    """A factor on the scores of the documents that a filter matches."""

    filter: Filter = Field(description="as in a search")
    factor: float = Field(description="factors of several boosts are multiplied")


class Fields(RequestModel):
    """Weights of fields in the lexical list. The text has 1."""

    title: float = Field(1.0, description="weight of the title's words")


class Rules(RequestModel):
    """All rules of an index. When rules overlap in a query, the longest match wins, from left to right."""

    synonyms: list[Synonym] = Field(default=[])
    results: list[Results] = Field(default=[])
    terms: list[Term] = Field(default=[])
    boosts: list[Boost] = Field(default=[])
    fields: Fields = Field(default_factory=Fields)

    def stored(self) -> dict[str, Any]:
        """Return the rules as JSON, as the API stores them: without members that have their default."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


class CurationAnswer(BaseModel):
    """The rules of an index. Version 0: it has none."""

    index: str
    version: int
    at: str | None
    note: str
    rules: Rules


class CurationVersion(BaseModel):
    """A version of the rules, without the rules."""

    version: int
    at: str
    note: str


class CurationVersions(BaseModel):
    """Stored versions of the rules, newest first."""

    index: str
    versions: list[CurationVersion]


class AddedHit(BaseModel):
    """A document that only the new rules show."""

    id: str
    place: int


class RemovedHit(BaseModel):
    """A document that only the stored rules show."""

    id: str
    was: int


class MovedHit(BaseModel):
    """A document that changes its place."""

    id: str
    was: int
    place: int


class QueryError(BaseModel):
    """The error of a search for the query."""

    code: str
    detail: str


class DryRunQuery(BaseModel):
    """Hits of one query under the stored and the new rules, or the error of its search."""

    query: str
    changed: bool
    overlap: float | None = Field(None, description="rank-biased overlap (p = 0.9): 1: same list, 0: no common hit")
    before: list[str] | None = None
    after: list[str] | None = None
    entered: list[AddedHit] | None = None
    left: list[RemovedHit] | None = None
    moved: list[MovedHit] | None = None
    curation: CurationApplied | None = None
    error: QueryError | None = None


class DryRunAnswer(BaseModel):
    """The changes that new rules would make against the stored version. Nothing was written."""

    index: str
    version: int
    changed: int = Field(description="number of queries whose hits differ")
    queries: list[DryRunQuery]
