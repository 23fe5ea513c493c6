"""What a search is asked for, as the OpenAPI document shows it.

The parts of a request that add to the user's words: earlier turns, feedback, examples.

How a search is reranked, as the OpenAPI document shows it.

What may be asked of counts and order, as the OpenAPI document shows it.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator

from services.dates import CalendarUnit
from services.filters.parsing import FilterJson, RangesJson
from services.index_spec import ScoreBy
from services.query.expansion import FEEDBACK_DOCUMENTS, ConversationMemory, RocchioParameters
from services.query.fusion import (
    DEFAULT_FUSION,
    DEFAULT_INTERPOLATION_WEIGHT,
    DEFAULT_RANK_CONSTANT,
    DEFAULT_WEIGHTS,
    Fusion,
    FusionMethodName,
)

_MEMORY, _ROCCHIO = ConversationMemory(), RocchioParameters()


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

    documents: int = Field(
        FEEDBACK_DOCUMENTS, ge=0, description="of the first round; 0: only `like` and `unlike` feed back"
    )
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
    weight: float = Field(
        DEFAULT_INTERPOLATION_WEIGHT, ge=0, le=1, description="share of the second opinion; the rest is the list's"
    )
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


Among = Literal["matches", "candidates"]


class Facet(BaseModel):
    """What to count of one field: its values, ranges that you name, or stretches of the calendar."""

    model_config = ConfigDict(extra="forbid", strict=True)

    terms: int | None = Field(None, ge=1, description="keyword, number, boolean: so many of the most frequent values")
    ranges: RangesJson | None = Field(None, description="number, date: how many have a value in each range")
    dates: CalendarUnit | None = Field(None, description="date: how many in each stretch of the calendar, UTC")
    ignore_own_filter: bool = Field(
        False,
        description="count as if the filter did not restrict this field, so that a shop can show what else there is",
    )

    @model_validator(mode="after")
    def _one(self) -> "Facet":
        if sum(given is not None for given in (self.terms, self.ranges, self.dates)) != 1:
            raise ValueError("a facet has one of `terms`, `ranges` and `dates`")
        return self


class SortKey(BaseModel):
    """What to sort by. Of several values the least counts in ascending order, the greatest in descending order."""

    model_config = ConfigDict(extra="forbid", strict=True)

    field: str = Field(description="a declared keyword, number, date or boolean, or `_score`", examples=["year"])
    order: Literal["asc", "desc"] | None = Field(None, description="ascending, but of `_score` descending")


Mode = Literal["sparse", "lexical", "hybrid"]
# What a hit is: a document, a chapter of talk, or a window.
HitUnit = Literal["document", "chapter", "passage"]
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

    method: FusionMethodName
    k: int | None = Field(None, ge=1, le=10_000, description=f"{DEFAULT_RANK_CONSTANT} unless given")

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
    unit: HitUnit = Field(
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
    fusion: FusionMethodName | FusionMethod = Field(
        DEFAULT_FUSION.method, description="hybrid only: how lists are scaled"
    )
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
            return Fusion(self.fusion.method, self.fusion.k or DEFAULT_RANK_CONSTANT)
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
