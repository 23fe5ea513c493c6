"""The bodies of a search, of a search over several indexes and of a batch, as the OpenAPI document shows them.

`SearchRequest` holds the query, the mode and the page; its nested models are fusion, two-phase search, facets, sort
keys, and the passage and highlight of a hit. `query_api.schemas.refinement` has expansion and reranking. The properties
at its end derive values for the stages of a search. Defaults come from `services.query`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    StrictBool,
    StrictInt,
    model_validator,
)
from pydantic.config import JsonDict

from query_api.schemas.refinement import Conversation, Example, Feedback, Rerank
from services.dates import CalendarUnit
from services.errors import InvalidInput
from services.filters.parsing import FilterJson, RangesJson
from services.index_spec import ScoreBy
from services.query.fusion import (
    DEFAULT_FUSION,
    DEFAULT_RANK_CONSTANT,
    DEFAULT_WEIGHTS,
    Fusion,
    FusionMethodName,
)


def _list_field(description: str, default: Sequence[str] = (), max_length: int | None = None) -> Any:
    """Return a field with a list as its default. pydantic would copy the list deeply, 3 microseconds a request."""
    extra: JsonDict = {"default": [*default]}
    factory = [*default].copy
    return Field(
        default_factory=factory,
        json_schema_extra=extra,
        max_length=max_length,
        description=description,
        # A list of 50,000 invalid values would take 30 MB for its errors.
        fail_fast=True,
    )


Among = Literal["matches", "candidates"]
# The largest value of the setting MAX_FACETS.
MAX_FACETS = 100


class Facet(BaseModel):
    """Counts of one field: by value, by ranges, or by calendar interval."""

    model_config = ConfigDict(extra="forbid", strict=True)

    terms: int | None = Field(
        None, ge=1, description="keyword, number, boolean: number of most frequent values to show"
    )
    ranges: RangesJson | None = Field(None, description="number, date: count the documents with a value in each range")
    dates: CalendarUnit | None = Field(None, description="date: count the documents in each calendar interval, UTC")
    ignore_own_filter: bool = Field(
        False,
        description="count as if the filter did not restrict this field, to show the alternatives to a chosen value",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "Facet":
        if sum(form is not None for form in (self.terms, self.ranges, self.dates)) != 1:
            raise ValueError("a facet has one of `terms`, `ranges` and `dates`")
        return self


def _limit_facets(facets: Any) -> Any:
    """Refuse facets beyond any setting before each is validated: 50,000 errors would take two seconds and 130 MB.

    Raises InvalidInput (`too_many_facets`).
    """
    if isinstance(facets, dict) and len(facets) > MAX_FACETS:
        raise InvalidInput("too_many_facets", f"A search may have {MAX_FACETS} facets at most.")
    return facets


class SortKey(BaseModel):
    """A sort key. Ascending order takes the least of several values of a field, descending order the greatest."""

    model_config = ConfigDict(extra="forbid", strict=True)

    field: str = Field(description="a declared keyword, number, date or boolean, or `_score`", examples=["year"])
    order: Literal["asc", "desc"] | None = Field(None, description="default: ascending; for `_score` descending")


Mode = Literal["sparse", "lexical", "hybrid"]
# The unit of a hit: a document, a chapter of talk, or a window.
HitUnit = Literal["document", "chapter", "passage"]
ReturnedField = Annotated[str, Field(pattern=r"^(title|text|chapters|metadata(\.[A-Za-z][A-Za-z0-9_]{0,63})?)$")]


# OpenSearch's limit of inner hits of a document (index.max_inner_result_window).
MAX_PER_DOCUMENT = 100


class FusionWeights(BaseModel):
    """Weights of the two lists in hybrid search; only their ratio matters."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    sparse: float = Field(DEFAULT_WEIGHTS["sparse"], ge=0, le=1e6)
    lexical: float = Field(DEFAULT_WEIGHTS["lexical"], ge=0, le=1e6)

    @model_validator(mode="after")
    def _positive_sum(self) -> "FusionWeights":
        if self.sparse + self.lexical <= 0:
            raise ValueError("at least one weight must be greater than zero")
        return self


class FusionMethod(BaseModel):
    """The fusion method. `k` is for `rrf` only: the larger, the less the first ranks stand out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    method: FusionMethodName
    k: int | None = Field(None, ge=1, le=10_000, description=f"default: {DEFAULT_RANK_CONSTANT}")

    @model_validator(mode="after")
    def _k_only_for_rrf(self) -> "FusionMethod":
        if self.k is not None and self.method != "rrf":
            raise ValueError("`k` goes with the method `rrf`")
        return self


class TwoPhaseSearch(BaseModel):
    """Two-phase search: heavy query pieces find documents; light pieces rescore the best `window` of each shard.

    Absent members take the service's defaults.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    threshold: float | None = Field(
        None, gt=0, le=1, description="least weight of a heavy piece, as a share of the heaviest weight"
    )
    window: int | None = Field(
        None, ge=1, description="documents to rescore in each shard; at least the requested hits"
    )


class PassageForm(BaseModel):
    """The details of a passage beside its text and place."""

    model_config = ConfigDict(extra="forbid", strict=True)

    fragment: bool = Field(False, description="add the text fragment of a link to the passage")


class Highlight(BaseModel):
    """The form of highlights."""

    model_config = ConfigDict(extra="forbid", strict=True)

    characters: int | None = Field(
        None, ge=20, le=10_000,
        description="shorten the passage to an excerpt of at most this many characters; null: the whole passage",
    )  # fmt: skip


class SearchRequest(BaseModel):
    """A search: the query, the selection of documents, and the form of the response."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(
        "",
        description="the words of the user, unchanged; may be empty beside `like`, `filter`, `facets` or `sort`",
        examples=["make a temporary folder"],
    )
    mode: Mode = Field("hybrid", description="`sparse` (meaning), `lexical` (BM25), or `hybrid` (both lists, fused)")
    size: StrictInt = Field(10, ge=1, description="number of hits to return")
    offset: StrictInt = Field(
        0,
        ge=0,
        description="number of hits to skip; for the first few pages only, which change as documents are written",
    )
    unit: HitUnit = Field(
        "document",
        description="unit of a hit: documents, chapters of talk, or passages; a document may have several chapters or "
        "passages among the hits",
    )
    per_document: StrictInt | None = Field(
        None, ge=1, le=MAX_PER_DOCUMENT, description="chapters or passages: the most hits of one document"
    )
    cursor: str | None = Field(
        None,
        description="stable pages while documents are written: `*` for the first page, then the `cursor` of the "
        "previous page; all members but `size`, `passage`, `highlight`, `explain` and `fields` must stay the same",
    )
    weights: FusionWeights = Field(default_factory=FusionWeights, description="hybrid only")
    candidates: StrictInt = Field(100, ge=1, description="hybrid only: length of each list before fusion")
    fusion: FusionMethodName | FusionMethod = Field(DEFAULT_FUSION.method, description="hybrid only: fusion method")
    min_score: float | None = Field(
        None, gt=0, le=1, strict=True, allow_inf_nan=False,
        description="least match of a hit in a list: 1 is a text that begins with the query, 0.5 half of it",
    )  # fmt: skip
    total: StrictBool = Field(False, description="count the documents that match, to 10,000")
    prune: float | None = Field(
        None, ge=0, lt=1, strict=True, allow_inf_nan=False,
        description="drop query pieces below this share of the heaviest weight; 0: none, null: the default",
    )  # fmt: skip
    two_phase: StrictBool | TwoPhaseSearch = Field(False, description="faster in large indexes; not for `lexical`")
    context: Conversation | None = Field(None, description="earlier turns of the conversation")
    feedback: Feedback | None = Field(None, description="relevance feedback; not for `lexical`")
    like: list[str | Example] = _list_field("find documents similar to these: ids of documents, or texts")
    unlike: list[str | Example] = _list_field(
        "find documents unlike these: ids, which are excluded from the hits, or texts"
    )
    include_liked: StrictBool = Field(False, description="whether liked documents may be among the hits")
    score_by: ScoreBy | None = Field(
        None, description="sparse scores: of the merged vector or of the best window; null: the default of the index"
    )
    passage: StrictBool | PassageForm = Field(True, description="return the best passage of each hit")
    highlight: StrictBool | Highlight = Field(
        False, description="mark the words of title and passage that matched, and list the other matches"
    )
    rerank: Rerank | None = Field(None, description="rerank the best documents by a second score")
    explain: StrictBool = Field(False, description="return the pieces that matched and the contribution of each")
    curation: StrictBool = Field(
        True,
        description="apply the curation rules of the index: synonyms, pinned and hidden results, term weights, boosts",
    )
    did_you_mean: StrictBool = Field(True, description="suggest words of the index for misspelt words")
    learn: StrictBool = Field(
        True, description="count the query, if the service learns frequent queries; false for a half-typed query"
    )
    fields: list[ReturnedField] = _list_field(
        "stored fields to return: `title`, `text`, `metadata`, `metadata.NAME` for a single metadata field, or "
        "`chapters` for all chapters of a talk",
        ("title", "metadata"),
        max_length=200,
    )
    filter: FilterJson = Field(None, description="filter by declared metadata")
    facets: Annotated[dict[str, Facet] | None, BeforeValidator(_limit_facets)] = Field(
        None, description="facets by field; an empty object counts the documents only"
    )
    sort: list[SortKey] = _list_field("sort keys; none: by score, best first")
    among: Among | None = Field(
        None,
        description="documents to count and sort: all matches (the default without words and for `lexical`), or the "
        "best `candidates` (the default for `sparse` and `hybrid`)",
    )

    @property
    def browses(self) -> bool:
        """Return whether the request lists all documents under the filter, without words, examples and scores."""
        return not self.query.strip() and not self.like

    @property
    def is_multi_index(self) -> bool:
        """Return whether the search is over several indexes."""
        return False

    @property
    def is_first(self) -> bool:
        """Return whether the request is for the top of the ranking, not for a later page."""
        return not self.offset and self.cursor in (None, "*")

    @property
    def chosen_among(self) -> Among:
        """The documents that are counted and sorted.

        The default for sparse and hybrid is the candidates: most documents share some piece with a question, so all
        matches would say little.
        """
        if self.browses:
            return "matches"
        return self.among or ("matches" if self.mode == "lexical" else "candidates")

    @property
    def is_ranked_by_api(self) -> bool:
        """Return whether the ranking is a list made in the API, rather than an order that OpenSearch can continue."""
        if self.browses:
            return False
        if self.sort:
            return self.chosen_among == "candidates"
        return self.mode == "hybrid"

    @property
    def is_fetched_separately(self) -> bool:
        """Return whether hits are chosen among candidates first, and only hits of the page are read."""
        return self.is_ranked_by_api or self.rerank is not None or self.unit != "document"

    @property
    def needs_explanation(self) -> bool:
        """Return whether the response lists the matches of each hit."""
        return self.explain or bool(self.highlight)

    @property
    def uses_feedback(self) -> bool:
        """Return whether documents or examples move the query."""
        return self.feedback is not None or bool(self.like or self.unlike)

    def chosen_fusion(self) -> Fusion:
        """Return the fusion method with its constant."""
        if isinstance(self.fusion, FusionMethod):
            return Fusion(self.fusion.method, self.fusion.k or DEFAULT_RANK_CONSTANT)
        return Fusion(self.fusion)

    @model_validator(mode="after")
    def _highlight_needs_passage(self) -> "SearchRequest":
        if self.highlight and not self.passage:
            raise ValueError("`highlight` marks the words of a passage: `passage` must be true")
        return self

    @property
    def has_text_fragments(self) -> bool:
        """Return whether the response has links to passages."""
        return isinstance(self.passage, PassageForm) and self.passage.fragment

    @property
    def highlight_characters(self) -> int | None:
        """The length of an excerpt in characters; None: the whole passage."""
        return self.highlight.characters if isinstance(self.highlight, Highlight) else None


class MultiIndexRequest(SearchRequest):
    """A search over several indexes. The hits are the same as from one index with all their documents."""

    indexes: list[str] = Field(
        min_length=1,
        fail_fast=True,
        description="names of the indexes, without repetition; an error of any index fails the search",
    )

    @property
    def is_multi_index(self) -> bool:
        """Return whether the search is over several indexes."""
        return True


class BatchSearch(SearchRequest):
    """A search of a batch: the body of POST /v1/indexes/{index}/search with its `index`, or of POST /v1/search."""

    index: str | None = None
    indexes: list[str] | None = None


class BatchRequest(BaseModel):
    """Independent searches. The limits apply to each search separately."""

    model_config = ConfigDict(extra="forbid")

    searches: list[SkipValidation[BatchSearch]]
