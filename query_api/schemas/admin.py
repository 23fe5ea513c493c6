"""What keys are asked for and shown as, as the OpenAPI document shows it.

What the doors of an index's rules take and answer, as the OpenAPI document shows it.

What the doors of frequent queries take and answer, as the OpenAPI document shows it.

What is completed and how that is answered, as the OpenAPI document shows it.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from query_api.schemas.search_request import Mode
from query_api.schemas.search_response import CurationApplied
from services.access.principals import INDEX_PATTERN, KeyScope
from services.curation.rules import Rules
from services.filters.parsing import FilterJson
from services.query.suggest import MAX_TYPED_CHARACTERS

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


MAX_FREQUENT_QUERIES: Final = 1000


class GivenQuery(BaseModel):
    """A query, and how often it was asked."""

    model_config = ConfigDict(extra="forbid")

    query: str
    times: int = Field(1, ge=1, le=1_000_000)


class QueriesBody(BaseModel):
    """Queries out of somebody else's log, or of one's own choice."""

    model_config = ConfigDict(extra="forbid")

    queries: list[GivenQuery] = Field(min_length=1, max_length=MAX_FREQUENT_QUERIES)


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


class SuggestAddress(BaseModel):
    """The parameters of GET suggest."""

    model_config = ConfigDict(extra="forbid")

    q: str = Field(
        "",
        description=f"what was typed, {MAX_TYPED_CHARACTERS} characters at most; a space ends a word; none: frequent queries",
    )
    size: int = Field(8, ge=1, description="suggestions at most")
    fuzzy: bool = Field(True, description="after what fits, words that differ by a letter, or two from nine letters on")
    filter: str | None = Field(
        None, description="documents whose titles may be named, in JSON as for a search; then queries are not"
    )


class TypedPart(BaseModel):
    """A part that was typed. `start` and `end` (exclusive) count characters (code points) of `text`."""

    start: int
    end: int


class Suggestion(BaseModel):
    """A title with the id of a document that has it, or a query that was often asked."""

    text: str
    kind: Literal["title", "query"]
    id: str | None = Field(None, description="of a title: a document that has it")
    typed: list[TypedPart] = Field(description="what of it was typed; none of a word that was misspelt")


class SuggestAnswer(BaseModel):
    """Suggestions, the best first; no text twice."""

    index: str
    q: str
    suggestions: list[Suggestion]
    titles: bool = Field(description="whether titles can be suggested; false: the index has to be reindexed for it")


_Pattern = Annotated[str, Field(pattern=f"^({INDEX_PATTERN.pattern})$")]
DAY_SECONDS = 86_400


class KeyRequest(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=200, description="for people: who uses it, and for what")
    scopes: Annotated[list[KeyScope], Field(min_length=1, max_length=3, strict=False)] = Field(
        description="`search` reads, `ingest` writes documents, `admin` all that and indexes, rules and (of every "
        "index) keys"
    )
    indexes: list[_Pattern] = Field(
        ["*"], min_length=1, max_length=100, description="names, or how they begin (`logs-*`); `*`: every index"
    )
    filter: FilterJson = Field(
        None,
        description="only documents that satisfy it exist for this key; with the scope `search` alone, and without "
        "`match` and `_state`",
    )
    expires_at: Annotated[AwareDatetime | None, Field(strict=False)] = Field(None, description="none: never")
    requests_per_second: float | None = Field(None, gt=0, le=1e6, description="none: as the service's settings say")
    burst: int | None = Field(None, ge=1, le=1_000_000, description="requests at once; none: two seconds' worth")
    requests_per_day: int | None = Field(None, ge=1, le=10**12, description="of the calendar, UTC; none: as many")


class RotateRequest(BaseModel):
    """A second secret."""

    model_config = ConfigDict(extra="forbid", strict=True)

    overlap_seconds: int = Field(
        7 * DAY_SECONDS,
        ge=0,
        le=365 * DAY_SECONDS,
        description="how long the secret that there is holds beside the new one",
    )


class SecretModel(BaseModel):
    created_at: str
    ends_at: str | None = Field(description="null: with the key")


class KeyModel(BaseModel):
    """A key, without its text, which nobody can read back."""

    id: str = Field(description="the first part of its text, and no secret")
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
    secrets: list[SecretModel] = Field(description="those that hold; two while one replaces the other")


class NewKey(KeyModel):
    """A key with its text, which is shown this once."""

    key: str


class KeyList(BaseModel):
    """The latest first, 10,000 at most."""

    keys: list[KeyModel]


class WhoModel(BaseModel):
    """What the key of this request may do."""

    id: str
    scopes: list[KeyScope]
    indexes: list[str]
    filter: Any = None
