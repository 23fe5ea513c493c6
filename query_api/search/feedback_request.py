"""The parts of a request that add to the user's words: earlier turns, feedback, examples."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from services.conversation import Memory
from services.rocchio import DOCUMENTS, Rocchio

_MEMORY, _ROCCHIO = Memory(), Rocchio()


class Context(BaseModel):
    """Earlier turns of a conversation, whose words count for what the query leaves out."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    turns: list[str] = Field(min_length=1, description="what the user said before, the oldest first")
    share: float = Field(_MEMORY.share, ge=0, le=1, description="how much a word of the last turn counts")
    decay: float = Field(_MEMORY.decay, ge=0, le=1, description="how much of that is left a turn earlier")
    rarity: float = Field(_MEMORY.rarity, ge=0, le=10, description="the larger, the less common words count; 0: as all")


class Feedback(BaseModel):
    """A second round with what the best documents of a first one hold (Rocchio)."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    documents: int = Field(DOCUMENTS, ge=0, description="of the first round; 0: only `like` and `unlike` feed back")
    choose_by: Literal["sparse", "lexical", "hybrid"] = Field(
        "hybrid", description="the list that they are the best of"
    )
    pieces: int = Field(_ROCCHIO.pieces, ge=1, description="of the documents, the heaviest")
    alpha: float = Field(_ROCCHIO.alpha, ge=0, le=100, description="weight of the query as it was")
    beta: float = Field(_ROCCHIO.beta, ge=0, le=100, description="weight of documents that are liked")
    gamma: float = Field(_ROCCHIO.gamma, ge=0, le=100, description="weight of those that are not")


class Example(BaseModel):
    """A text that no document holds."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
