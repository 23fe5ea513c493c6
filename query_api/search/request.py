"""What a search is asked for, as the OpenAPI document shows it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.fusion import DEFAULT_WEIGHTS

Mode = Literal["sparse", "lexical", "hybrid"]
ReturnedField = Literal["title", "text", "metadata"]


class FusionWeights(BaseModel):
    """Shares of the two lists in hybrid search; only their ratio matters."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    sparse: float = Field(DEFAULT_WEIGHTS["sparse"], ge=0, le=1e6)
    lexical: float = Field(DEFAULT_WEIGHTS["lexical"], ge=0, le=1e6)

    @model_validator(mode="after")
    def _some(self) -> "FusionWeights":
        if self.sparse + self.lexical <= 0:
            raise ValueError("at least one weight must be greater than zero")
        return self


class SearchRequest(BaseModel):
    """What to search for and what to return."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(description="the words of the user, as they are", examples=["make a temporary folder"])
    mode: Mode = Field("hybrid", description="meaning (sparse), keywords (lexical), or both fused (hybrid)")
    size: int = Field(10, ge=1, description="hits to return")
    offset: int = Field(0, ge=0, description="hits to pass over; a few pages only, and what is written moves them")
    cursor: str | None = Field(
        None,
        description="pages that stand still while documents are written: `*` for the first one, then the `cursor` of "
        "the page before; all but `size`, `passage`, `explain` and `fields` must stay as they were",
    )
    weights: FusionWeights = Field(default_factory=FusionWeights, description="hybrid only")
    candidates: int = Field(100, ge=1, description="hybrid only: length of each list before they are fused")
    passage: bool = Field(True, description="name the best passage of each hit")
    explain: bool = Field(False, description="say which pieces matched and what each contributed")
    fields: list[ReturnedField] = Field(default=["title", "metadata"], description="stored fields to return")
