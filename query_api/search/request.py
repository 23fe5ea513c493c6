"""What a search is asked for, as the OpenAPI document shows it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator

from query_api.search.feedback_request import Context, Example, Feedback
from query_api.search.rerank_form import Rerank
from query_api.search.selection_form import Among, Facet, SortKey
from services.filters.form import FilterJson
from services.fusion import DEFAULT_FUSION, DEFAULT_K, DEFAULT_WEIGHTS, Fusion, Method
from services.index_spec import ScoreBy

Mode = Literal["sparse", "lexical", "hybrid"]
# What a hit is: a document, a chapter of talk, or a window.
Unit = Literal["document", "chapter", "passage"]
ReturnedField = Annotated[str, Field(pattern=r"^(title|text|chapters|metadata(\.[A-Za-z][A-Za-z0-9_]{0,63})?)$")]


# OpenSearch gives no more inner hits of a document (index.max_inner_result_window).
MAX_PER_DOCUMENT = 100


class FusionWeights(BaseModel):
    """Shares of the two lists in hybrid search; only their ratio matters."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    sparse: float = Field(DEFAULT_WEIGHTS["sparse"], ge=0, le=1e6)
    lexical: float = Field(DEFAULT_WEIGHTS["lexical"], ge=0, le=1e6)

    @model_validator(mode="after")
    def _some(self) -> "FusionWeights":
        if self.sparse + self.lexical <= 0:
            raise ValueError("at least one weight must be greater than zero")
        return self


class FusionMethod(BaseModel):
    """How lists are brought to one scale. `k` is for `rrf` alone: the larger, the less the first places stand out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    method: Method
    k: int | None = Field(None, ge=1, le=10_000, description=f"{DEFAULT_K} unless given")

    @model_validator(mode="after")
    def _k_of_ranks(self) -> "FusionMethod":
        if self.k is not None and self.method != "rrf":
            raise ValueError("`k` goes with the method `rrf`")
        return self


class TwoPhaseSearch(BaseModel):
    """Heavy query pieces find documents, the light ones are added to the scores of the best `window` of each shard.

    What is left out is the service's default.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    threshold: float | None = Field(None, gt=0, le=1, description="heavy: at least this share of the heaviest weight")
    window: int | None = Field(None, ge=1, description="never fewer than the hits that are asked for")


class PassageForm(BaseModel):
    """What is told of a passage beside its text and place."""

    model_config = ConfigDict(extra="forbid", strict=True)

    fragment: bool = Field(False, description="the text fragment of a link to it")


class Highlight(BaseModel):
    """How the words that matched are shown."""

    model_config = ConfigDict(extra="forbid", strict=True)

    characters: int | None = Field(
        None, ge=20, le=10_000, description="shorten the passage to an excerpt of at most so many; null: mark all of it"
    )


class SearchRequest(BaseModel):
    """What to search for and what to return."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(
        "",
        description="the words of the user, as they are; may be empty beside `like`, `filter`, `facets` or `sort`",
        examples=["make a temporary folder"],
    )
    mode: Mode = Field("hybrid", description="meaning (sparse), keywords (lexical), or both fused (hybrid)")
    size: StrictInt = Field(10, ge=1, description="hits to return")
    offset: StrictInt = Field(
        0, ge=0, description="hits to pass over; a few pages only, and what is written moves them"
    )
    unit: Unit = Field(
        "document",
        description="what is found: documents, chapters of talk, or passages; several of the latter may be of one "
        "document",
    )
    per_document: StrictInt | None = Field(
        None,
        ge=1,
        le=MAX_PER_DOCUMENT,
        description="chapters or passages: the best so many of a document at most",
    )
    cursor: str | None = Field(
        None,
        description="pages that stand still while documents are written: `*` for the first one, then the `cursor` of "
        "the page before; all but `size`, `passage`, `highlight`, `explain` and `fields` must stay as they were",
    )
    weights: FusionWeights = Field(default_factory=FusionWeights, description="hybrid only")
    candidates: StrictInt = Field(100, ge=1, description="hybrid only: length of each list before they are fused")
    fusion: Method | FusionMethod = Field(DEFAULT_FUSION.method, description="hybrid only: how lists are scaled")
    prune: float | None = Field(
        None,
        ge=0,
        lt=1,
        strict=True,
        allow_inf_nan=False,
        description="query pieces below this share of the heaviest weight are left out; 0: none, null: the default",
    )
    two_phase: StrictBool | TwoPhaseSearch = Field(False, description="faster in large indexes; not for lexical")
    context: Context | None = Field(None, description="what was said before the query")
    feedback: Feedback | None = Field(None, description="not for lexical")
    like: list[str | Example] = Field(default=[], description="more like these: ids of documents, or texts")
    unlike: list[str | Example] = Field(default=[], description="not like those; their documents are not found")
    include_liked: StrictBool = Field(False, description="whether liked documents may be found again")
    score_by: ScoreBy | None = Field(
        None, description="sparse scores: of the merged vector or of the best window; null: what the index is made for"
    )
    passage: StrictBool | PassageForm = Field(True, description="name the best passage of each hit")
    highlight: StrictBool | Highlight = Field(
        False, description="say which words of the title and of the passage matched, and what matched beside them"
    )
    rerank: Rerank | None = Field(None, description="order the best documents by a second opinion")
    explain: StrictBool = Field(False, description="say which pieces matched and what each contributed")
    curation: StrictBool = Field(
        True, description="apply the index's synonyms, pinned and hidden results, terms, boosts"
    )
    did_you_mean: StrictBool = Field(
        True, description="where the keyword list is empty: name words of the index that may have been meant"
    )
    learn: StrictBool = Field(
        True,
        description="count the query, where the service learns which are frequent; false for one that is half typed",
    )
    fields: list[ReturnedField] = Field(
        default=["title", "metadata"],
        max_length=200,
        description="stored fields to return: `title`, `text`, `metadata`, `metadata.NAME` for one of the metadata, or "
        "`chapters`, all of a talk",
    )
    filter: FilterJson = Field(None, description="which documents may be found, by their declared metadata")
    facets: dict[str, Facet] | None = Field(
        None, description="what to count, by field; an empty object counts the documents alone"
    )
    sort: list[SortKey] = Field(default=[], description="order of the hits; none: by score, the best first")
    among: Among | None = Field(
        None,
        description="what is counted and sorted: all that match (the default without words and for lexical), or the "
        "`candidates` best (the default for sparse and hybrid)",
    )

    @property
    def browses(self) -> bool:
        """Whether documents are looked through: all that the filter leaves, with nothing that makes one the better."""
        return not self.query.strip() and not self.like

    @property
    def is_first(self) -> bool:
        """Whether the top of the ranking is asked for, and not a page behind it."""
        return not self.offset and self.cursor in (None, "*")

    @property
    def chosen_among(self) -> Among:
        """What is counted and sorted: most documents share some piece with a question, so all that match say little."""
        if self.browses:
            return "matches"
        return self.among or ("matches" if self.mode == "lexical" else "candidates")

    @property
    def is_ranked_here(self) -> bool:
        """Whether the ranking is a list that is made here, and not an order in which the engine can go on."""
        if self.browses:
            return False
        if self.sort:
            return self.chosen_among == "candidates"
        return self.mode == "hybrid"

    @property
    def is_read_later(self) -> bool:
        """Whether hits are chosen among candidates, and read once it is known which of them are shown."""
        return self.is_ranked_here or self.rerank is not None or self.unit != "document"

    @property
    def asks_why(self) -> bool:
        """Whether it is to be said what matched in each hit."""
        return self.explain or bool(self.highlight)

    @property
    def asks_for_feedback(self) -> bool:
        """Whether documents or examples move the query."""
        return self.feedback is not None or bool(self.like or self.unlike)

    def chosen_fusion(self) -> Fusion:
        """The method with its constant."""
        if isinstance(self.fusion, FusionMethod):
            return Fusion(self.fusion.method, self.fusion.k or DEFAULT_K)
        return Fusion(self.fusion)

    @model_validator(mode="after")
    def _something_to_mark(self) -> "SearchRequest":
        if self.highlight and not self.passage:
            raise ValueError("`highlight` marks the words of a passage: leave `passage` true")
        return self

    @property
    def wants_fragments(self) -> bool:
        """Whether links to passages are asked for."""
        return isinstance(self.passage, PassageForm) and self.passage.fragment

    @property
    def highlight_characters(self) -> int | None:
        """The length of an excerpt in characters; None for the whole passage."""
        return self.highlight.characters if isinstance(self.highlight, Highlight) else None
