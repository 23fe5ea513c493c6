"""What keys are asked for and shown as, as the OpenAPI document shows it."""

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from services.access.principal import PATTERN, Scope
from services.filters.form import FilterJson

_Pattern = Annotated[str, Field(pattern=f"^({PATTERN.pattern})$")]
DAY = 86_400


class KeyRequest(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=200, description="for people: who uses it, and for what")
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=3, strict=False)] = Field(
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
        7 * DAY, ge=0, le=365 * DAY, description="how long the secret that there is holds beside the new one"
    )


class SecretModel(BaseModel):
    created_at: str
    ends_at: str | None = Field(description="null: with the key")


class KeyModel(BaseModel):
    """A key, without its text, which nobody can read back."""

    id: str = Field(description="the first part of its text, and no secret")
    name: str
    scopes: list[Scope]
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
    scopes: list[Scope]
    indexes: list[str]
    filter: Any = None
