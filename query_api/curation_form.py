"""What the doors of an index's rules take and answer, as the OpenAPI document shows it."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from query_api.search.answer import CurationApplied
from query_api.search.request import Mode
from services.curation.rules import Rules

MAX_QUERIES: Final = 50


class CurationBody(BaseModel):
    """Rules for an index, in place of those that it has."""

    model_config = ConfigDict(extra="forbid")

    rules: Rules
    note: str = Field("", max_length=500, description="why, for whoever reads the versions")


class CurationAnswer(BaseModel):
    """The rules of an index. Version 0: it has none, and never had."""

    index: str
    version: int
    at: str | None
    note: str
    rules: Rules


class CurationVersion(BaseModel):
    version: int
    at: str
    note: str


class CurationVersions(BaseModel):
    """The newest first; 100 older ones are kept."""

    index: str
    versions: list[CurationVersion]


class DryRunBody(BaseModel):
    """Rules that are not stored, and queries to try them with."""

    model_config = ConfigDict(extra="forbid")

    rules: Rules
    queries: list[str] = Field(min_length=1, max_length=MAX_QUERIES)
    mode: Mode = "hybrid"
    size: int = Field(10, ge=1)


class Entered(BaseModel):
    id: str
    place: int


class Left(BaseModel):
    id: str
    was: int


class Moved(BaseModel):
    id: str
    was: int
    place: int


class QueryError(BaseModel):
    code: str
    detail: str


class DryRunQuery(BaseModel):
    """One query, with the hits that it has and would have; or the error that a search for it is answered with."""

    query: str
    changed: bool
    overlap: float | None = Field(
        None, description="rank-biased overlap (p .9): 1 for the same list, 0 for no hit in common"
    )
    before: list[str] | None = None
    after: list[str] | None = None
    entered: list[Entered] | None = None
    left: list[Left] | None = None
    moved: list[Moved] | None = None
    curation: CurationApplied | None = None
    error: QueryError | None = None


class DryRunAnswer(BaseModel):
    """What would change against the version that is stored. Nothing was written."""

    index: str
    version: int
    changed: int = Field(description="queries whose hits differ")
    queries: list[DryRunQuery]
