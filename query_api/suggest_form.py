"""What is completed and how that is answered, as the OpenAPI document shows it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from services.typed import MOST_TYPED


class SuggestAddress(BaseModel):
    """The parameters of GET suggest."""

    model_config = ConfigDict(extra="forbid")

    q: str = Field(
        "", description=f"what was typed, {MOST_TYPED} characters at most; a space ends a word; none: frequent queries"
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
