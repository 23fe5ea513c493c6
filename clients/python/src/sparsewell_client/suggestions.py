"""Suggestions and frequent queries."""

from typing import Literal

from pydantic import BaseModel, Field


class TypedPart(BaseModel):
    """A part of a suggestion that the user typed. `start` and `end` are offsets in `text`."""

    start: int
    end: int


class Suggestion(BaseModel):
    """A title, or a frequent query."""

    text: str
    kind: Literal["title", "query"]
    id: str | None = Field(None, description="title only: a document that has it")
    typed: list[TypedPart] = Field(description="parts that were typed; misspelt words have none")


class SuggestAnswer(BaseModel):
    """Suggestions, best first, without duplicates."""

    index: str
    q: str
    suggestions: list[Suggestion]
    titles: bool = Field(description="whether titles can be suggested; false: the index must be reindexed for it")


class FrequentQuery(BaseModel):
    """A frequent query. `asked` counts all searches; `lately` halves every 30 days."""

    query: str
    asked: int
    lately: float


class FrequentQueries(BaseModel):
    """Frequent queries, the most frequent of late first."""

    index: str
    total: int
    queries: list[FrequentQuery]


class AddedQueries(BaseModel):
    """The number of queries that were counted."""

    index: str
    added: int


class RemovedQueries(BaseModel):
    """The number of queries that were deleted."""

    index: str
    deleted: int
