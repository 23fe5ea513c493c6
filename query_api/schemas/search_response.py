"""What a search answers, as the OpenAPI document shows it.

What a search over several indexes is asked for and answers, as the OpenAPI document shows it.

Bodies of batches and of their answers.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from query_api.schemas.resources import Problem
from query_api.schemas.search_request import Among, HitUnit, Mode, Reranked, SearchRequest


class Passage(BaseModel):
    """The best window; offsets count characters of `text`."""

    text: str
    start: int
    end: int
    window: int
    windows: int = Field(description="windows of the document; 0 while it waits for its vectors")
    score: float | None
    start_time: float | None = Field(None, description="of talk: seconds")
    end_time: float | None = Field(None, description="of talk: seconds")
    speaker: str | None = Field(None, description="of talk: who says most of it")
    fragment: str | None = Field(None, description="what follows the # of a page's address to show the passage there")


class Chapter(BaseModel):
    """A chapter of talk; `number` counts from 1, offsets count characters of `text`, times are seconds."""

    number: int
    title: str
    start: int
    end: int
    start_time: float | None = None
    end_time: float | None = None


Origins = dict[str, float]


class Why(BaseModel):
    """One contribution to a list's score; the weights and their origins are given for sparse matches."""

    list: Literal["sparse", "lexical"]
    piece: str
    contribution: float
    expansion: bool
    id: int | None = None
    query_weight: float | None = None
    document_weight: float | None = None
    origins: Origins | None = Field(
        None,
        description="what each origin of the query weight contributed; for keyword matches what a rule did; `title`: "
        "what a word of the title adds to its share of the text, `chapter_title` one of a chapter's, "
        "`chapter` and `passage` one of the best chapter and passage; `boost`: what a factor of the document added",
    )


class ScorePart(BaseModel):
    """What a list, or an opinion, gave to a score: its share of the weights times its score on the common scale."""

    share: float
    scaled: float
    contribution: float


class Match(BaseModel):
    """A piece of the sparse list or a term of the keyword list, with what it added to the score of its list."""

    list: Literal["sparse", "lexical"]
    piece: str
    contribution: float
    id: int | None = Field(None, description="vocabulary id of a piece")


class Span(BaseModel):
    """A word that matched. `start` and `end` count characters (code points) of `title` or `text`."""

    start: int
    end: int
    matches: list[Match] = Field(description="largest contribution first")


class Excerpt(BaseModel):
    """The part of a passage that shows most of what matched; offsets count characters of `text`."""

    text: str
    start: int
    end: int


class Highlight(BaseModel):
    """Where a document matched: the words to mark, in order, and what matched without being among them."""

    title: list[Span]
    text: list[Span] = Field(description="within the passage, or within the excerpt when one was asked for")
    excerpt: Excerpt | None = None
    expansions: list[Match] = Field(description="pieces that the encoder added: nowhere among the document's own words")
    elsewhere: list[Match] = Field(description="matched in other parts of the document than its title and this passage")
    complete: bool = Field(description="false when there was more text than one search looks at: words may be unmarked")


class Hit(BaseModel):
    """One document, or the chapter or passage of it that was found."""

    id: str
    score: float | None = Field(description="null where nothing is scored; 0 for a pinned one that does not match")
    pinned: bool | None = Field(None, description="a rule of the index put it at this place")
    scores: dict[str, float] = Field(description="the document's own score in each list that named it")
    state: str
    title: str | None = None
    text: str | None = None
    metadata: dict[str, Any] | None = None
    chapters: list[Chapter] | None = Field(None, description="all of a talk, where `fields` names them")
    chapter: Chapter | None = Field(
        None, description="of talk with chapters: the one that was found, or that the passage is of"
    )
    passage: Passage | None = None
    link: str | None = Field(
        None, description="plays the talk from the passage; where chapters are found, from the chapter"
    )
    highlight: Highlight | None = None
    why: list[Why] | None = None
    fusion: dict[str, ScorePart] | None = Field(
        None,
        description="hybrid, explained: by list; the contributions add up to `score`, a list that is missing gave 0",
    )
    reranking: dict[str, ScorePart] | None = Field(
        None,
        description="reranked, explained: of the `list` (its own score; hybrid: the fused one) and of the `opinion` "
        "(for a document without one the list's stands in); the contributions add up to `score`",
    )


class QueryPiece(BaseModel):
    """A piece that the query was turned into. One that was pruned is in no score and in no `why`."""

    piece: str
    id: int
    weight: float
    pruned: bool
    origins: Origins = Field(
        description="what adds up to the weight: `query`, `synonym`, `context`, `like`, `feedback`, `override` (what a "
        "rule took away is below zero), and below zero `unlike`"
    )


class FedBack(BaseModel):
    """What moved the query: the best documents of the first round, and those that were named."""

    documents: list[str]
    liked: list[str]
    unliked: list[str]
    without_vector: list[str] = Field(description="not encoded (yet), so they moved nothing")
    unknown: list[str] = Field(description="not in the index")


class Timings(BaseModel):
    """Milliseconds by stage. `engine` is what OpenSearch itself reports, a part of `opensearch`."""

    encode: float
    opensearch: float
    engine: float
    fuse: float
    rerank: float = Field(description="waiting for the model process included")
    shape: float
    total: float


RuleKind = Literal["synonym", "term", "results", "boost", "field"]


class AppliedRule(BaseModel):
    """A rule of the index that concerned the query. `rule` counts from 0 within its kind."""

    kind: RuleKind
    rule: int
    matched: str | None = Field(
        None,
        description="the words of the query, of the rule for `results`; for `boost` its filter, for `field` its name",
    )


class SkippedRule(BaseModel):
    """What a rule says and was not done."""

    kind: RuleKind
    rule: int
    what: str
    reason: Literal["too_many", "not_found", "several_indexes", "sorted", "unfit", "by_unit"] = Field(
        description="`unfit`: this generation of the index lacks the field; `by_unit`: it is for documents, and parts "
        "of them were searched"
    )


class CurationApplied(BaseModel):
    """What the rules of the index did to a search; absent where it has none."""

    version: int = Field(description="of the rules; 0 for rules that are not stored")
    applied: list[AppliedRule]
    hidden: int | None = Field(None, description="documents that rules keep out of this answer, found or not")
    skipped: list[SkippedRule] | None = None


class CorrectedWord(BaseModel):
    """A word of the query that no document has. `start` and `end` (exclusive) count characters of the query."""

    typed: str
    suggested: str
    start: int
    end: int


class DidYouMean(BaseModel):
    """What may have been meant. It was not searched for: send `query` if the user says so."""

    query: str
    words: list[CorrectedWord]


End = Literal["matches", "candidates"]


class FacetBucket(BaseModel):
    """A value, or a range that a filter takes as it is, and how many documents have it."""

    value: str | float | bool | None = None
    range: dict[str, Any] | None = None
    count: int


class FacetCounts(BaseModel):
    """Values from the most frequent one, ranges as they were asked for, dates in the order of the calendar."""

    buckets: list[FacetBucket]
    other: int = Field(description="counts of the values that are not shown, added up")
    exact: bool = Field(description="false where several shards, or indexes, might count a value higher than is said")
    error_bound: int | None = Field(None, description="where it is not exact: by how much a count may be too low")


class CountedDocuments(BaseModel):
    """Of which documents the facets are."""

    documents: int
    among: Among


class SearchAnswer(BaseModel):
    """Hits, best first, or as they were to be sorted. The mode is `browse` where nothing was asked in words."""

    index: str
    mode: Mode | Literal["browse"]
    unit: HitUnit | None = Field(None, description="where it is not the document")
    query: str
    encoder: str = Field(description="fingerprint of the encoder whose vectors were searched")
    hits: list[Hit]
    cursor: str | None = Field(None, description="of the next page, when this one was asked for with a cursor")
    end: End | None = Field(
        None,
        description="with `offset` or `cursor`: why no page follows. `matches`: there are no more; `candidates`: the "
        "lists were cut at `candidates`, and a larger one may have more",
    )
    timings_ms: Timings
    pieces: list[QueryPiece] | None = None
    curation: CurationApplied | None = None
    rerank: Reranked | None = Field(None, description="only where it was asked for")
    feedback: FedBack | None = None
    did_you_mean: DidYouMean | None = Field(
        None,
        description="only where the keyword list (lexical, hybrid) is empty, and words of the index are near",
    )
    facets: dict[str, FacetCounts] | None = None
    counted: CountedDocuments | None = None


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


class BatchSearch(SearchRequest):
    """One search of a batch: what POST /v1/indexes/{index}/search takes, with its `index`, or POST /v1/search."""

    index: str | None = None
    indexes: list[str] | None = None


class BatchRequest(BaseModel):
    """Searches that have nothing to do with each other. Each is held against the limits on its own."""

    model_config = ConfigDict(extra="forbid")

    searches: list[SkipValidation[BatchSearch]]


class BatchedAnswer(BaseModel):
    """What the search would have been answered alone: `answer` with status 200, else `problem`."""

    status: int
    answer: SearchAnswer | AcrossAnswer | None = None
    problem: Problem | None = None


class BatchAnswer(BaseModel):
    """In the order of the searches."""

    answers: list[BatchedAnswer] = Field(description="one for each search")
