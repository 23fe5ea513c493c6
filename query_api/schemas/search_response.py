"""The responses of searches, batches and suggestions, as the OpenAPI document shows them.

`SearchAnswer` is the response of one index, `MultiIndexAnswer` of several, `BatchAnswer` of a batch, `SuggestAnswer` of
suggestions while a user types. Bodies are built from checked values and not validated again: these models document
them.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field

from query_api.schemas.refinement import Reranker
from query_api.schemas.resources import Problem
from query_api.schemas.search_request import Among, HitUnit, Mode


class Passage(BaseModel):
    """The best window of a hit; offsets count characters of `text`."""

    text: str
    start: int
    end: int
    window: int
    windows: int = Field(description="number of windows of the document; 0 while it has no vectors yet")
    score: float | None
    start_time: float | None = Field(None, description="of talk: seconds")
    end_time: float | None = Field(None, description="of talk: seconds")
    speaker: str | None = Field(None, description="of talk: the speaker of most of it")
    fragment: str | None = Field(
        None, description="text fragment: follows the # of a page's address to show the passage"
    )


class Chapter(BaseModel):
    """A chapter of talk; `number` counts from 1, offsets count characters of `text`, times are seconds."""

    number: int
    title: str
    start: int
    end: int
    start_time: float | None = None
    end_time: float | None = None


Origins = dict[str, float]


class ScoreContribution(BaseModel):
    """A contribution to a list's score; sparse matches have the weights and their origins too."""

    list: Literal["sparse", "lexical"]
    piece: str
    contribution: float
    expansion: bool
    id: int | None = None
    query_weight: float | None = None
    document_weight: float | None = None
    origins: Origins | None = Field(
        None,
        description="contributions by origin. Sparse: the origins of the query weight. Lexical: `title`, "
        "`chapter_title`, `chapter` and `passage` (the best ones), added to the share of the whole text, and curation "
        "rules. Both: `boost`, added by a factor of the document",
    )


class ScorePart(BaseModel):
    """The part of a list or of a model in a score: its share of the weights times its score on the common scale."""

    share: float
    scaled: float
    contribution: float


class Match(BaseModel):
    """A piece of the sparse list or a term of the lexical list, with its contribution to the score of its list."""

    list: Literal["sparse", "lexical"]
    piece: str
    contribution: float
    id: int | None = Field(None, description="of a piece: its id in the vocabulary")


class Span(BaseModel):
    """A word that matched. `start` and `end` count characters (code points) of `title` or `text`."""

    start: int
    end: int
    matches: list[Match] = Field(description="largest contribution first")


class Excerpt(BaseModel):
    """The part of a passage with the largest share of the matches; offsets count characters of `text`."""

    text: str
    start: int
    end: int


class Highlight(BaseModel):
    """Highlights of a document: the words to mark, in order, and the matches outside them."""

    title: list[Span]
    text: list[Span] = Field(description="within the passage, or within the excerpt if there is one")
    excerpt: Excerpt | None = None
    expansions: list[Match] = Field(description="pieces that the encoder added; the document's own words lack them")
    elsewhere: list[Match] = Field(description="matches in other parts of the document than its title and this passage")
    complete: bool = Field(description="false if there was more text than one search marks, so words may be unmarked")


class Hit(BaseModel):
    """A document, or the chapter or passage of it that was found."""

    id: str
    score: float | None = Field(description="null if hits have no scores; 0 for a pinned document that does not match")
    pinned: bool | None = Field(None, description="a curation rule put the document at this place")
    scores: dict[str, float] = Field(description="score in each list that has the document")
    state: str
    title: str | None = None
    text: str | None = None
    metadata: dict[str, Any] | None = None
    chapters: list[Chapter] | None = Field(None, description="all chapters of a talk, if `fields` names them")
    chapter: Chapter | None = Field(
        None, description="of talk: the chapter that was found, or the chapter of the passage"
    )
    passage: Passage | None = None
    link: str | None = Field(
        None, description="link that plays the talk from the passage, or from the chapter that was found"
    )
    highlight: Highlight | None = None
    why: list[ScoreContribution] | None = None
    fusion: dict[str, ScorePart] | None = Field(
        None,
        description="hybrid, with `explain`: by list; the contributions add up to `score`, an absent list adds 0",
    )
    reranking: dict[str, ScorePart] | None = Field(
        None,
        description="reranked, with `explain`: of the `list` (hybrid: the fused score) and of the model's `opinion` "
        "(the list's score if the model gave none); the contributions add up to `score`",
    )


class QueryPiece(BaseModel):
    """A piece of the query. A pruned piece is in no score and in no `why`."""

    piece: str
    id: int
    weight: float
    pruned: bool
    origins: Origins = Field(
        description="parts of the weight, which add up to it: `query`, `synonym`, `context`, `like`, `feedback`, "
        "`override` (negative if a rule lowered it) and `unlike` (negative)"
    )
    encoder_weight: float | None = Field(
        None, description="the encoder's weight of the piece; absent if the index does not adapt weights"
    )
    factor: float | None = Field(
        None, description="adaptation to the documents of the index: the table's weight is `encoder_weight` times it"
    )


class FeedbackDocuments(BaseModel):
    """The documents that moved the query: the best of the first round, and the documents named in the request."""

    documents: list[str]
    liked: list[str]
    unliked: list[str]
    without_vector: list[str] = Field(description="not encoded yet, so without effect")
    unknown: list[str] = Field(description="not in the index")


class Timings(BaseModel):
    """Milliseconds by stage. `engine` is the time that OpenSearch reports, a part of `opensearch`."""

    encode: float
    opensearch: float
    engine: float
    fuse: float
    rerank: float = Field(description="including the wait for the model process")
    shape: float
    total: float


class Reranked(BaseModel):
    """The outcome of reranking.

    `reason`: the code of the error of the requested model. The list then keeps its order, or is reranked by the table
    (`applied`, with `model` "table").
    """

    applied: bool
    model: Reranker = Field(description="the model that gave the scores, or should have given them")
    scored: int = Field(description="documents that the model scored")
    reason: str | None = None


RuleKind = Literal["synonym", "term", "results", "boost", "field"]


class AppliedRule(BaseModel):
    """A curation rule that applied to the query. `rule` counts from 0 within its kind."""

    kind: RuleKind
    rule: int
    matched: str | None = Field(
        None,
        description="the matched words of the query; for `results` the rule's words, for `boost` the filter, for "
        "`field` the name",
    )


class SkippedRule(BaseModel):
    """A part of a curation rule that was not applied."""

    kind: RuleKind
    rule: int
    what: str
    reason: Literal["too_many", "not_found", "several_indexes", "sorted", "unfit", "by_unit"] = Field(
        description="`unfit`: this generation of the index lacks the field; `by_unit`: the rule is for documents, and "
        "the search was for chapters or passages"
    )


class CurationApplied(BaseModel):
    """The effect of the index's curation rules on a search; absent if the index has none."""

    version: int = Field(description="version of the rules; 0 for rules that are not stored")
    applied: list[AppliedRule]
    hidden: int | None = Field(None, description="documents that rules exclude, whether they match or not")
    skipped: list[SkippedRule] | None = None


class CorrectedWord(BaseModel):
    """A word of the query that no document has. `start` and `end` (exclusive) count characters of the query."""

    typed: str
    suggested: str
    start: int
    end: int


class DidYouMean(BaseModel):
    """A suggested query. It was not searched for: send `query` if the user accepts it."""

    query: str
    words: list[CorrectedWord]


End = Literal["matches", "candidates"]


class FacetBucket(BaseModel):
    """A value, or a range in the form that a filter takes, with the number of documents that have it."""

    value: str | float | bool | None = None
    range: dict[str, Any] | None = None
    count: int


class FacetCounts(BaseModel):
    """Counts of a facet: values by descending count, ranges in the order of the request, dates in calendar order."""

    buckets: list[FacetBucket]
    other: int = Field(description="sum of the counts of values that are not shown")
    exact: bool = Field(description="false if a count may be too low, because several shards or indexes were counted")
    error_bound: int | None = Field(None, description="if not exact: the number by which a count may be too low")


class CountedDocuments(BaseModel):
    """The documents that the facets count."""

    documents: int
    among: Among


class TotalHits(BaseModel):
    """The number of documents that match. `gte`: at least so many, because counting ends there."""

    value: int
    relation: Literal["eq", "gte"]


class SearchAnswer(BaseModel):
    """Hits, best first or in the order of `sort`. The mode is `browse` for a request without words."""

    index: str
    mode: Mode | Literal["browse"]
    unit: HitUnit | None = Field(None, description="if it is not `document`")
    query: str
    encoder: str = Field(description="fingerprint of the encoder whose vectors were searched")
    hits: list[Hit]
    cursor: str | None = Field(None, description="cursor of the next page, if the request had a cursor")
    end: End | None = Field(
        None,
        description="with `offset` or `cursor`: why no page follows. `matches`: there are no more hits; `candidates`: "
        "the lists were cut at `candidates`, and a larger value may find more",
    )
    total: TotalHits | None = Field(None, description="if the request has `total`")
    timings_ms: Timings
    pieces: list[QueryPiece] | None = None
    curation: CurationApplied | None = None
    rerank: Reranked | None = Field(None, description="if the request has `rerank`")
    feedback: FeedbackDocuments | None = None
    did_you_mean: DidYouMean | None = Field(
        None,
        description="if a word of the query is misspelt and the index has a similar word",
    )
    facets: dict[str, FacetCounts] | None = None
    counted: CountedDocuments | None = None


class MultiIndexHit(Hit):
    """A hit; `index` and `id` together name the document."""

    index: str


class MultiIndexAnswer(BaseModel):
    """Hits of all indexes, best first or in the order of `sort`."""

    indexes: list[str]
    mode: Mode
    query: str
    encoders: dict[str, str] = Field(description="by index: the fingerprint of the encoder of its vectors")
    hits: list[MultiIndexHit]
    cursor: str | None = Field(None, description="as in a search of one index")
    end: End | None = Field(None, description="as in a search of one index")
    total: TotalHits | None = Field(None, description="over all indexes, if the request has `total`")
    timings_ms: Timings
    curation: dict[str, CurationApplied] | None = Field(
        None, description="by index, if it has rules; pins do not apply across indexes"
    )
    did_you_mean: DidYouMean | None = Field(
        None, description="as in a search of one index, from the words of all indexes"
    )
    pieces: dict[str, list[QueryPiece]] | None = Field(None, description="by index")
    facets: dict[str, FacetCounts] | None = Field(None, description="over all indexes together")
    counted: CountedDocuments | None = None


class BatchedAnswer(BaseModel):
    """The result of one search: `answer` with status 200, otherwise `problem`."""

    status: int
    answer: SearchAnswer | MultiIndexAnswer | None = None
    problem: Problem | None = None


class BatchAnswer(BaseModel):
    """The results, in the order of the searches."""

    answers: list[BatchedAnswer] = Field(description="one result for each search")


class TypedRange(BaseModel):
    """A typed part. `start` and `end` (exclusive) count characters (code points) of `text`."""

    start: int
    end: int


class Suggestion(BaseModel):
    """A title with the id of a document that has it, or a frequent query."""

    text: str
    kind: Literal["title", "query"]
    id: str | None = Field(None, description="of a title: the id of a document that has it")
    typed: list[TypedRange] = Field(description="the typed parts of `text`; none for a misspelt word")


class SuggestAnswer(BaseModel):
    """Suggestions, best first, without repeated texts."""

    index: str
    q: str
    suggestions: list[Suggestion]
    titles: bool = Field(description="whether the index can suggest titles; false: reindex it")
