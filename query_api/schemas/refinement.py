"""The parts of a search request that refine it: a conversation, relevance feedback, and a second score.

A conversation and feedback change the query before the search; reranking scores its best documents again. Defaults come
from `services.query`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.query.expansion import FEEDBACK_DOCUMENTS, ConversationMemory, RocchioParameters
from services.query.fusion import DEFAULT_MODEL_WEIGHT, DEFAULT_TABLE_WEIGHT

_MEMORY, _ROCCHIO = ConversationMemory(), RocchioParameters()
_RERANK_MODEL = "`table` needs no model process, others do. Default: `table` if the dense encoder has one, else `dense`"
_RERANK_TOP = "documents to score, from the first; default: 100, LISTWISE_TOP for `listwise`"
_RERANK_WEIGHT = (
    f"the second score's share; default: {DEFAULT_TABLE_WEIGHT} (`table`), {DEFAULT_MODEL_WEIGHT} (`dense`), "
    "a setting (others)"
)


class Conversation(BaseModel):
    """Earlier turns of a conversation. Their words supplement the query."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    turns: list[str] = Field(min_length=1, fail_fast=True, description="earlier messages of the user, oldest first")
    share: float = Field(_MEMORY.share, ge=0, le=1, description="weight of a word of the last turn")
    decay: float = Field(_MEMORY.decay, ge=0, le=1, description="factor of that weight for each turn before")
    rarity: float = Field(
        _MEMORY.rarity, ge=0, le=10, description="the larger, the less common words weigh; 0: all words alike"
    )


class Feedback(BaseModel):
    """Relevance feedback (Rocchio): a second round, with the query moved towards the best documents of a first."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    documents: int = Field(
        FEEDBACK_DOCUMENTS,
        ge=0,
        description="best documents of the first round; 0: feedback from `like` and `unlike` only",
    )
    choose_by: Literal["sparse", "lexical", "hybrid"] = Field("hybrid", description="mode of the first round")
    pieces: int = Field(_ROCCHIO.pieces, ge=1, description="heaviest pieces of the documents to add")
    alpha: float = Field(_ROCCHIO.alpha, ge=0, le=100, description="weight of the original query")
    beta: float = Field(_ROCCHIO.beta, ge=0, le=100, description="weight of liked documents")
    gamma: float = Field(_ROCCHIO.gamma, ge=0, le=100, description="weight of disliked documents")


class Example(BaseModel):
    """An example text that is not in the index."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str


Reranker = Literal["table", "dense", "cross-encoder", "listwise"]


class DenseFeedback(BaseModel):
    """Dense feedback: the query vector moves towards the best reranked documents, and all are scored again."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    documents: int = Field(1, ge=1, le=20, description="best documents that count as relevant")
    weight: float = Field(0.3, gt=0, le=1, description="share of their mean vector in the new query vector")


class Rerank(BaseModel):
    """Rerank the best documents by a second score. The table stands in for a model that does not answer in time."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: Reranker | None = Field(None, description=_RERANK_MODEL)
    top: int | None = Field(None, ge=1, description=_RERANK_TOP)
    weight: float | None = Field(None, ge=0, le=1, description=_RERANK_WEIGHT)
    feedback: DenseFeedback | None = Field(None, description="`table` and `dense` only; off by default")

    @model_validator(mode="after")
    def _feedback_only_for_dense(self) -> "Rerank":
        if self.feedback is not None and self.model not in {None, "table", "dense"}:
            raise ValueError('`feedback` goes with `model`: "table" or "dense"')
        return self
