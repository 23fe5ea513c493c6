"""Requests and responses of administration, as the OpenAPI document shows them.

In order: curation rules with their versions and dry runs, frequent queries, and API keys. The limits of a request are
constants here; a key's scopes and index patterns come from `services.access.principals`.
"""

from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from query_api.schemas.search_request import Mode
from query_api.schemas.search_response import CurationApplied
from services.access.principals import INDEX_PATTERN, KeyScope
from services.curation.rules import Rules
from services.filters.parsing import FilterJson

MAX_QUERIES: Final = 50


class CurationRequest(BaseModel):
    """Curation rules for an index, which replace its present rules."""

    model_config = ConfigDict(extra="forbid")

    rules: Rules
    note: str = Field("", max_length=500, description="reason of the change, shown with the version")


class CurationAnswer(BaseModel):
    """The curation rules of an index. Version 0: it has never had rules."""

    index: str
    version: int
    at: str | None
    note: str
    rules: Rules


class CurationVersion(BaseModel):
    """A stored version of the rules."""

    version: int
    at: str
    note: str


class CurationVersions(BaseModel):
    """The versions of the rules, newest first; 100 older versions are kept."""

    index: str
    versions: list[CurationVersion]


class DryRunRequest(BaseModel):
    """Rules to try without storing them, and the queries to try them with."""

    model_config = ConfigDict(extra="forbid")

    rules: Rules
    queries: list[str] = Field(min_length=1, max_length=MAX_QUERIES, fail_fast=True)
    mode: Mode = "hybrid"
    size: int = Field(10, ge=1)


class AddedHit(BaseModel):
    """A hit that the rules bring in."""

    id: str
    place: int


class RemovedHit(BaseModel):
    """A hit that the rules take out."""

    id: str
    was: int


class MovedHit(BaseModel):
    """A hit whose place the rules change."""

    id: str
    was: int
    place: int


class QueryError(BaseModel):
    """The error of a search."""

    code: str
    detail: str


class DryRunQuery(BaseModel):
    """A query with its hits before and after, or the error of its search."""

    query: str
    changed: bool
    overlap: float | None = Field(
        None, description="rank-biased overlap (p = 0.9): 1 for the same list, 0 for no common hit"
    )
    before: list[str] | None = None
    after: list[str] | None = None
    entered: list[AddedHit] | None = None
    left: list[RemovedHit] | None = None
    moved: list[MovedHit] | None = None
    curation: CurationApplied | None = None
    error: QueryError | None = None


class DryRunAnswer(BaseModel):
    """The effect of the rules compared with the stored version. Nothing is written."""

    index: str
    version: int
    changed: int = Field(description="queries whose hits differ")
    queries: list[DryRunQuery]


MAX_FREQUENT_QUERIES: Final = 1000


class QueryCount(BaseModel):
    """A query and its number of searches."""

    model_config = ConfigDict(extra="forbid")

    query: str
    times: int = Field(1, ge=1, le=1_000_000)


class QueriesRequest(BaseModel):
    """Queries from another log, or chosen by hand."""

    model_config = ConfigDict(extra="forbid")

    queries: list[QueryCount] = Field(min_length=1, max_length=MAX_FREQUENT_QUERIES, fail_fast=True)


class FrequentQuery(BaseModel):
    """A frequent query. `times` counts all searches; `recent` halves every 30 days."""

    query: str
    times: int
    recent: float
    asked: int = Field(deprecated=True, description="the same number as `times`, its former name")
    lately: float = Field(deprecated=True, description="the same number as `recent`, its former name")


class FrequentQueries(BaseModel):
    """Frequent queries, highest `recent` first."""

    index: str
    total: int
    queries: list[FrequentQuery]


class AddedQueries(BaseModel):
    """The number of queries added."""

    index: str
    added: int


class RemovedQueries(BaseModel):
    """The number of queries deleted."""

    index: str
    deleted: int


_Pattern = Annotated[str, Field(pattern=f"^({INDEX_PATTERN.pattern})$")]
DAY_SECONDS = 86_400


class KeyRequest(BaseModel):
    """An API key to create."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=200, description="for people: the user and purpose of the key")
    scopes: Annotated[list[KeyScope], Field(min_length=1, max_length=3, strict=False)] = Field(
        description="`search` reads; `ingest` writes documents; `admin` also manages indexes, rules and (with every "
        "index) keys"
    )
    indexes: list[_Pattern] = Field(
        ["*"],
        min_length=1,
        max_length=100,
        fail_fast=True,
        description="names or prefixes (`logs-*`); `*`: every index",
    )
    filter: FilterJson = Field(
        None,
        description="document-level security: the key sees only documents that match; for the scope `search` alone, "
        "and without `match` and `_state`",
    )
    expires_at: Annotated[AwareDatetime | None, Field(strict=False)] = Field(None, description="null: never")
    requests_per_second: float | None = Field(None, gt=0, le=1e6, description="null: the service's setting")
    burst: int | None = Field(
        None, ge=1, le=1_000_000, description="size of the token bucket; null: two seconds' worth of requests"
    )
    requests_per_day: int | None = Field(
        None, ge=1, le=10**12, description="of a calendar day, UTC; null: the service's setting"
    )
    documents_per_second: float | None = Field(
        None, gt=0, le=1e6, description="documents that the key may write; null: the service's setting"
    )
    bytes_per_second: float | None = Field(
        None, gt=0, le=1e12, description="bytes of documents that the key may write; null: the service's setting"
    )


class RotateRequest(BaseModel):
    """The rotation of a key: a second secret."""

    model_config = ConfigDict(extra="forbid", strict=True)

    overlap_seconds: int = Field(
        7 * DAY_SECONDS,
        ge=0,
        le=365 * DAY_SECONDS,
        description="seconds for which the present secret stays valid beside the new secret",
    )


class SecretModel(BaseModel):
    """A secret of a key, without its text."""

    created_at: str
    ends_at: str | None = Field(description="null: as long as the key")


class KeyModel(BaseModel):
    """A key without its text, which cannot be read back."""

    id: str = Field(description="the first part of the key's text; not secret")
    name: str
    scopes: list[KeyScope]
    indexes: list[str]
    filter: Any = None
    created_at: str
    expires_at: str | None = None
    revoked_at: str | None = None
    requests_per_second: float | None = None
    burst: int | None = None
    requests_per_day: int | None = None
    documents_per_second: float | None = None
    bytes_per_second: float | None = None
    secrets: list[SecretModel] = Field(description="valid secrets; two during a rotation")


class NewKey(KeyModel):
    """A key with its text, which is shown only once."""

    key: str


class KeyList(BaseModel):
    """Keys, latest first, 10,000 at most."""

    keys: list[KeyModel]


class KeyRights(BaseModel):
    """The rights of the key of this request."""

    id: str
    scopes: list[KeyScope]
    indexes: list[str]
    filter: Any = None
