"""Search answers: hits, passages, explanations, facets, batches, suggestions and frequent queries.

Offsets count characters (code points).
"""

from typing import Any, Literal

from pydantic import BaseModel, Field

from sparsewell_client.search_request import Among, Mode, Unit

# Why no page follows: there are no more matches, or the lists were cut at `candidates`.
End = Literal["matches", "candidates"]
RuleKind = Literal["synonym", "term", "results", "boost", "field"]


class Passage(BaseModel):
    """The best window of a hit. `start` and `end` are offsets in the document's text."""

    text: str
    start: int
    end: int
    window: int
    windows: int = Field(description="number of windows of the document; 0 before it is encoded")
    score: float | None
    start_time: float | None = Field(None, description="talk only, in seconds")
    end_time: float | None = Field(None, description="talk only, in seconds")
    speaker: str | None = Field(None, description="talk only: who says most of the passage")
    fragment: str | None = Field(None, description="text fragment: what follows the # in a link to the passage")


class Chapter(BaseModel):
    """A chapter of talk. `number` counts from 1; `start` and `end` are offsets in the text; times are in seconds."""

    number: int
    title: str
    start: int
    end: int
    start_time: float | None = None
    end_time: float | None = None


class ScoreContribution(BaseModel):
    """A contribution to the score of a list. Sparse matches also have weights and their origins."""

    list: Literal["sparse", "lexical"]
    piece: str
    contribution: float
    expansion: bool
    id: int | None = Field(None, description="vocabulary id of a piece")
    query_weight: float | None = None
    document_weight: float | None = None
    origins: dict[str, float] | None = Field(None, description="contribution of each origin of the query weight")


class ScorePart(BaseModel):
    """Contribution of one list to a score: its share times its score on the common scale."""

    share: float
    scaled: float
    contribution: float


class Match(BaseModel):
    """A piece of the sparse list or a term of the lexical list, with its contribution to the list's score."""

    list: Literal["sparse", "lexical"]
    piece: str
    contribution: float
    id: int | None = Field(None, description="vocabulary id of a piece")


class Span(BaseModel):
    """A matching word. `start` and `end` are offsets in `title` or `text`."""

    start: int
    end: int
    matches: list[Match] = Field(description="largest contribution first")


class Excerpt(BaseModel):
    """The part of a passage with most of the matches. `start` and `end` are offsets in the document's text."""

    text: str
    start: int
    end: int


class Highlight(BaseModel):
    """The matching words of a document, and matches that have no word to mark."""

    title: list[Span]
    text: list[Span] = Field(description="in the passage, or in the excerpt when one was requested")
    excerpt: Excerpt | None = None
    expansions: list[Match] = Field(description="pieces that the encoder added and no word of the document has")
    elsewhere: list[Match] = Field(description="matches outside of the title and the passage")
    complete: bool = Field(description="false: the text was too long for one search, some words may be unmarked")


class Hit(BaseModel):
    """A document, or the chapter or passage that was found."""

    id: str
    score: float | None = Field(description="null without scoring; 0 for a pinned document that does not match")
    pinned: bool | None = Field(None, description="true: a rule of the index placed it here")
    scores: dict[str, float] = Field(description="the document's score in each list that has it")
    state: str
    title: str | None = None
    text: str | None = None
    metadata: dict[str, Any] | None = None
    chapters: list[Chapter] | None = Field(None, description="all chapters of a talk, when `fields` names them")
    chapter: Chapter | None = Field(None, description="talk only: the chapter that was found or has the passage")
    passage: Passage | None = None
    link: str | None = Field(None, description="talk only: plays the passage, or the chapter when chapters are found")
    highlight: Highlight | None = None
    why: list[ScoreContribution] | None = None
    fusion: dict[str, ScorePart] | None = Field(
        None, description="hybrid with `explain`: contributions by list; they add up to `score`"
    )
    reranking: dict[str, ScorePart] | None = Field(
        None, description="reranking with `explain`: contributions of the list and of the second model"
    )


class QueryPiece(BaseModel):
    """A piece of the encoded query. A pruned piece is in no score and in no `why`."""

    piece: str
    id: int
    weight: float
    pruned: bool
    origins: dict[str, float] = Field(description="what the weight is the sum of: `query`, `synonym`, `context`, ...")
    encoder_weight: float | None = Field(None, description="the encoder's weight; null: the index does not adapt it")
    factor: float | None = Field(None, description="factor that adapts the encoder's weight to the index")


class FeedbackDocuments(BaseModel):
    """Documents that relevance feedback used."""

    documents: list[str]
    liked: list[str]
    unliked: list[str]
    without_vector: list[str] = Field(description="not encoded yet, so without effect")
    unknown: list[str] = Field(description="not in the index")


class Timings(BaseModel):
    """Milliseconds by stage. `engine` is OpenSearch's own figure and a part of `opensearch`."""

    encode: float
    opensearch: float
    engine: float
    fuse: float
    rerank: float = Field(description="includes waiting for the model process")
    shape: float
    total: float


class Reranked(BaseModel):
    """The outcome of reranking. `reason`: code of why the requested model gave no scores."""

    applied: bool
    model: Literal["table", "dense", "cross-encoder", "listwise"]
    scored: int = Field(description="documents that the second model scored")
    reason: str | None = None


class AppliedRule(BaseModel):
    """A rule of the index that matched the query. `rule` counts from 0 within its kind."""

    kind: RuleKind
    rule: int
    matched: str | None = Field(None, description="matching words; `boost`: its filter; `field`: its name")


class SkippedRule(BaseModel):
    """A rule of the index that was not applied."""

    kind: RuleKind
    rule: int
    what: str
    reason: Literal["too_many", "not_found", "several_indexes", "sorted", "unfit", "by_unit"] = Field(
        description="`unfit`: this generation of the index lacks the field; `by_unit`: the rule is for documents only"
    )


class CurationApplied(BaseModel):
    """The effects of the index's rules on a search."""

    version: int = Field(description="of the rules; 0: rules that are not stored")
    applied: list[AppliedRule]
    hidden: int | None = Field(None, description="documents that rules hide from this answer")
    skipped: list[SkippedRule] | None = None


class CorrectedWord(BaseModel):
    """A word of the query that no document has. `start` and `end` are offsets in the query."""

    typed: str
    suggested: str
    start: int
    end: int


class DidYouMean(BaseModel):
    """A corrected query. It was not searched for: send `query` if the user accepts it."""

    query: str
    words: list[CorrectedWord]


class FacetBucket(BaseModel):
    """A value, or a range in the form of a filter, and the number of documents with it."""

    value: str | float | bool | None = None
    range: dict[str, Any] | None = None
    count: int


class FacetCounts(BaseModel):
    """Counts of a facet: values by frequency, ranges in the requested order, dates in calendar order."""

    buckets: list[FacetBucket]
    other: int = Field(description="sum of the counts that are not shown")
    exact: bool = Field(description="false: with several shards or indexes a count may be too low")
    error_bound: int | None = Field(None, description="not exact: maximum by which a count is too low")


class CountedDocuments(BaseModel):
    """The documents that facets count."""

    documents: int
    among: Among


class TotalHits(BaseModel):
    """The number of documents that match. `gte`: at least so many."""

    value: int
    relation: Literal["eq", "gte"]


class SearchAnswer(BaseModel):
    """Hits, best first or in the requested order. `mode` is `browse` for a search without words."""

    index: str
    mode: Mode | Literal["browse"]
    unit: Unit | None = Field(None, description="null: documents")
    query: str
    encoder: str = Field(description="fingerprint of the encoder of the index")
    hits: list[Hit]
    cursor: str | None = Field(None, description="of the next page, for a search with a cursor")
    end: End | None = Field(None, description="with `offset` or `cursor`: why no page follows")
    total: TotalHits | None = Field(None, description="for a search with `total`")
    timings_ms: Timings
    pieces: list[QueryPiece] | None = None
    curation: CurationApplied | None = None
    rerank: Reranked | None = None
    feedback: FeedbackDocuments | None = None
    did_you_mean: DidYouMean | None = Field(None, description="only when a word is misspelt")
    facets: dict[str, FacetCounts] | None = None
    counted: CountedDocuments | None = None


class MultiIndexHit(Hit):
    """A hit of a search over several indexes. `index` and `id` together identify the document."""

    index: str


class MultiIndexAnswer(BaseModel):
    """Hits of a search over several indexes, best first or in the requested order."""

    indexes: list[str]
    mode: Mode
    query: str
    encoders: dict[str, str] = Field(description="fingerprint of the encoder of each index")
    hits: list[MultiIndexHit]
    cursor: str | None = Field(None, description="of the next page, for a search with a cursor")
    end: End | None = Field(None, description="with `offset` or `cursor`: why no page follows")
    total: TotalHits | None = Field(None, description="over all indexes, for a search with `total`")
    timings_ms: Timings
    curation: dict[str, CurationApplied] | None = Field(None, description="by index, for indexes with rules")
    did_you_mean: DidYouMean | None = Field(None, description="only when a word is misspelt")
    pieces: dict[str, list[QueryPiece]] | None = Field(None, description="by index")
    facets: dict[str, FacetCounts] | None = Field(None, description="over all indexes")
    counted: CountedDocuments | None = None


class Problem(BaseModel):
    """An error as RFC 9457 describes it. `code` is stable; `detail` is for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retry_after: int | None = Field(None, description="in seconds")


class BatchedAnswer(BaseModel):
    """The answer to one search of a batch: `answer` with status 200, else `problem`."""

    status: int
    answer: SearchAnswer | MultiIndexAnswer | None = None
    problem: Problem | None = None


class BatchAnswer(BaseModel):
    """Answers in the order of the searches."""

    answers: list[BatchedAnswer]


class TypedRange(BaseModel):
    """A part of a suggestion that the user typed. `start` and `end` are offsets in `text`."""

    start: int
    end: int


class Suggestion(BaseModel):
    """A title, or a frequent query."""

    text: str
    kind: Literal["title", "query"]
    id: str | None = Field(None, description="title only: a document that has it")
    typed: list[TypedRange] = Field(description="parts that were typed; misspelt words have none")


class SuggestAnswer(BaseModel):
    """Suggestions, best first, without duplicates."""

    index: str
    q: str
    suggestions: list[Suggestion]
    titles: bool = Field(description="whether titles can be suggested; false: the index must be reindexed for it")


class FrequentQuery(BaseModel):
    """A frequent query. `times` counts all searches; `recent` halves every 30 days."""

    query: str
    times: int
    recent: float
    asked: int = Field(deprecated=True, description="the same number as `times`, its former name")
    lately: float = Field(deprecated=True, description="the same number as `recent`, its former name")


class FrequentQueries(BaseModel):
    """Frequent queries, the most frequent of late first."""

    index: str
    total: int
    queries: list[FrequentQuery]


class AddedQueries(BaseModel):
    """The number of queries that were counted."""

    index: str
    added: int


class RemovedQueries(BaseModel):
    """The number of queries that were deleted."""

    index: str
    deleted: int
