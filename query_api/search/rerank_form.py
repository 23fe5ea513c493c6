"""How a search is reranked, as the OpenAPI document shows it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.interpolation import DEFAULT_WEIGHT

Reranker = Literal["dense", "cross-encoder", "listwise"]


class DenseFeedback(BaseModel):
    """The best documents after reranking move the query's dense vector towards them, and all are scored again."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    documents: int = Field(1, ge=1, le=20, description="documents that are taken as relevant")
    weight: float = Field(0.3, gt=0, le=1, description="share of their mean in the new query vector")


class Rerank(BaseModel):
    """A second opinion on the best documents of the list. Where it does not come in time, the list stays as it is."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: Reranker = Field("dense", description="dense: the vectors of the index; others: what the model process has")
    top: int = Field(100, ge=1, description="documents that are scored, from the first")
    weight: float = Field(DEFAULT_WEIGHT, ge=0, le=1, description="share of the second opinion; the rest is the list's")
    feedback: DenseFeedback | None = Field(None, description="dense only; off by default")

    @model_validator(mode="after")
    def _feedback_is_dense(self) -> "Rerank":
        if self.feedback is not None and self.model != "dense":
            raise ValueError('`feedback` goes with `model`: "dense"')
        return self


class Reranked(BaseModel):
    """What became of it. `reason` is the code of why the list came as it was."""

    applied: bool
    model: Reranker
    scored: int = Field(description="documents that the second opinion was about")
    reason: str | None = None
