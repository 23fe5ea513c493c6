"""What a search over several indexes is asked for and answers, as the OpenAPI document shows it."""

from pydantic import BaseModel, Field

from query_api.search.answer import (
    CountedDocuments,
    CurationApplied,
    DidYouMean,
    End,
    FacetCounts,
    Hit,
    QueryPiece,
    Timings,
)
from query_api.search.request import Mode, SearchRequest


class AcrossRequest(SearchRequest):
    """A search over several indexes. Hits are what one index with all their documents would find."""

    indexes: list[str] = Field(min_length=1, description="each once; all of them are searched, or none")


class AcrossHit(Hit):
    """One document; `index` and `id` together name it."""

    index: str


class AcrossAnswer(BaseModel):
    """Hits of all indexes, best first, or as they were to be sorted."""

    indexes: list[str]
    mode: Mode
    query: str
    encoders: dict[str, str] = Field(description="of each index, the fingerprint of the encoder of its vectors")
    hits: list[AcrossHit]
    cursor: str | None = Field(None, description="as in a search of one index")
    end: End | None = Field(None, description="as in a search of one index")
    timings_ms: Timings
    curation: dict[str, CurationApplied] | None = Field(
        None, description="by index, of those that have rules; nothing is pinned across indexes"
    )
    did_you_mean: DidYouMean | None = Field(None, description="as in a search of one index, from the words of all")
    pieces: dict[str, list[QueryPiece]] | None = Field(None, description="by index")
    facets: dict[str, FacetCounts] | None = Field(None, description="of all indexes together")
    counted: CountedDocuments | None = None
