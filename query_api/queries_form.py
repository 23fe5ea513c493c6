"""What the doors of frequent queries take and answer, as the OpenAPI document shows it."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

MOST: Final = 1000


class GivenQuery(BaseModel):
    """A query, and how often it was asked."""

    model_config = ConfigDict(extra="forbid")

    query: str
    times: int = Field(1, ge=1, le=1_000_000)


class QueriesBody(BaseModel):
    """Queries out of somebody else's log, or of one's own choice."""

    model_config = ConfigDict(extra="forbid")

    queries: list[GivenQuery] = Field(min_length=1, max_length=MOST)


class FrequentQuery(BaseModel):
    """`asked` counts all there was, `lately` what is left of it: it halves every 30 days."""

    query: str
    asked: int
    lately: float


class FrequentQueries(BaseModel):
    """Those that are asked most nowadays first."""

    index: str
    total: int
    queries: list[FrequentQuery]


class AddedQueries(BaseModel):
    index: str
    added: int


class RemovedQueries(BaseModel):
    index: str
    deleted: int
