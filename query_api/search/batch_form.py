"""Bodies of batches and of their answers."""

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from query_api.models import Problem
from query_api.search.across_form import AcrossAnswer
from query_api.search.answer import SearchAnswer
from query_api.search.request import SearchRequest


class BatchSearch(SearchRequest):
    """One search of a batch: what POST /v1/indexes/{index}/search takes, with its `index`, or POST /v1/search."""

    index: str | None = None
    indexes: list[str] | None = None


class BatchRequest(BaseModel):
    """Searches that have nothing to do with each other. Each is held against the limits on its own."""

    model_config = ConfigDict(extra="forbid")

    searches: list[SkipValidation[BatchSearch]]


class BatchedAnswer(BaseModel):
    """What the search would have been answered alone: `answer` with status 200, else `problem`."""

    status: int
    answer: SearchAnswer | AcrossAnswer | None = None
    problem: Problem | None = None


class BatchAnswer(BaseModel):
    """In the order of the searches."""

    answers: list[BatchedAnswer] = Field(description="one for each search")
