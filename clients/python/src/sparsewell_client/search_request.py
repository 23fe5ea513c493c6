"""Search requests.

Only members that were set are sent; the defaults shown here are those of the API.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["sparse", "lexical", "hybrid"]
Unit = Literal["document", "chapter", "passage"]
Method = Literal["min_max", "z_score", "rrf"]
Among = Literal["matches", "candidates"]
# A condition on declared metadata, as JSON: {"field": "year", "range": {"gte": 1800}}, or `all`, `any`, `not` of such.
Filter = dict[str, Any]
# Lower and upper bounds: gt, gte, lt, lte, with numbers or dates.
Range = dict[str, float | str]


class RequestModel(BaseModel):
    """Base of models that are sent to the API. Unknown members are kept.

    An older client can use the members of a newer API, which refuses unknown members with the documented error. Rules
    that are read and written back are complete.
    """

    model_config = ConfigDict(extra="allow", populate_by_name=True)


class Conversation(RequestModel):
    """Earlier turns of a conversation. Their words are added if the query lacks them."""

    turns: list[str] = Field(description="what the user said before, oldest first")
    share: float = Field(0.5, description="weight of a word of the last turn, 0 to 1")
    decay: float = Field(0.75, description="factor by which the weight falls with each earlier turn, 0 to 1")
    rarity: float = Field(1.0, description="how much rare words count more than common ones; 0: all words count alike")


class Feedback(RequestModel):
    """Relevance feedback (Rocchio): search again with pieces of the best documents."""

    documents: int = Field(3, description="documents of the first round; 0: only `like` and `unlike` feed back")
    choose_by: Mode = Field("hybrid", description="list whose best documents feed back")
    pieces: int = Field(20, description="heaviest pieces to take from the documents")
    alpha: float = Field(1.0, description="weight of the original query")
    beta: float = Field(0.5, description="weight of liked documents")
    gamma: float = Field(0.25, description="weight of unliked documents")


class Example(RequestModel):
    """A text to search for similar documents with; it need not be in the index."""

    text: str


class DenseFeedback(RequestModel):
    """Relevance feedback on dense vectors: the best reranked documents move the query vector."""

    documents: int = Field(1, description="documents that are taken as relevant")
    weight: float = Field(0.3, description="share of their mean in the new query vector, 0 to 1")


class Rerank(RequestModel):
    """Reranking of the best documents by a second score.

    When the model process is late, the dense query table takes its place; without a table the list stays as it is.
    """

    model: Literal["table", "dense", "cross-encoder", "listwise"] | None = Field(
        None,
        description="`table`: vectors stored in the index, without a model; `dense`: the same vectors, and a query "
        "vector from the model process; others: models of the model process. Default: `table` where the index's "
        "dense encoder has one",
    )
    top: int | None = Field(
        None, description="number of documents to rerank, from the first; default: 100, less for `listwise`"
    )
    weight: float | None = Field(
        None,
        description="share of the second score, 0 to 1; default: 0.4 (`table`), 0.7 (`dense`), a setting (others)",
    )
    feedback: DenseFeedback | None = Field(None, description="only with `table` and `dense`")


class Facet(RequestModel):
    """The values of a field to count. Exactly one of `terms`, `ranges` and `dates` is needed."""

    terms: int | None = Field(None, description="keyword, number, boolean: number of most frequent values")
    ranges: list[Range] | None = Field(None, description="number, date: documents with a value in each range")
    dates: Literal["year", "quarter", "month", "week", "day", "hour"] | None = Field(
        None, description="date: documents in each calendar interval, UTC"
    )
    ignore_own_filter: bool = Field(False, description="count as if the filter did not restrict this field")


class SortKey(RequestModel):
    """A sort key. Ascending order takes the least of several values of a field, descending order the greatest."""

    field: str = Field(description="a declared keyword, number, date or boolean field, or `_score`")
    order: Literal["asc", "desc"] | None = Field(None, description="ascending by default; `_score`: descending")


class FusionWeights(RequestModel):
    """Weights of the two lists of a hybrid search. Only their ratio matters."""

    sparse: float = 0.5
    lexical: float = 0.5


class FusionMethod(RequestModel):
    """How the scores of two lists are brought to one scale."""

    method: Method
    k: int | None = Field(None, description="only `rrf`: a larger k makes first places stand out less; default 60")


class TwoPhaseSearch(RequestModel):
    """Two-phase search: heavy query pieces find documents, light pieces rescore the best `window` of each shard."""

    threshold: float | None = Field(None, description="heavy pieces: at least this share of the heaviest weight")
    window: int | None = Field(None, description="documents to rescore; at least the number of requested hits")


class PassageForm(RequestModel):
    """The parts of a passage beside its text and offsets."""

    fragment: bool = Field(False, description="the text fragment of a link to the passage")


class Highlight(RequestModel):
    """How matching words are shown."""

    characters: int | None = Field(None, description="maximum length of an excerpt; null: mark the whole passage")


class SearchRequest(RequestModel):
    """A search: the query and the shape of the answer."""

    query: str = Field("", description="the user's words; may be empty with `like`, `filter`, `facets` or `sort`")
    mode: Mode = Field("hybrid", description="learned sparse vectors, lexical (keyword search), or both fused")
    size: int = Field(10, description="number of hits")
    offset: int = Field(0, description="hits to skip; for a few pages only, since writes move them")
    unit: Unit = Field("document", description="what a hit is: a document, a chapter of talk, or a passage")
    per_document: int | None = Field(None, description="chapters, passages: maximum number of hits of one document")
    cursor: str | None = Field(
        None,
        description="stable pages: `*` for the first, then the `cursor` of the previous page. Only `size`, `passage`, "
        "`highlight`, `explain` and `fields` may change between pages",
    )
    weights: FusionWeights = Field(default_factory=FusionWeights, description="only hybrid")
    candidates: int = Field(100, description="only hybrid: length of each list before fusion")
    fusion: Method | FusionMethod = Field("min_max", description="only hybrid: how scores are scaled")
    min_score: float | None = Field(
        None, description="least match of a hit, above 0 to 1; 1 is a text that begins with the query"
    )
    total: bool = Field(False, description="count the documents that match, to 10,000")
    prune: float | None = Field(
        None, description="drop query pieces below this share of the heaviest weight; 0: none, null: the API's default"
    )
    two_phase: bool | TwoPhaseSearch = Field(False, description="faster in large indexes; not for lexical")
    context: Conversation | None = Field(None, description="earlier turns of the conversation")
    feedback: Feedback | None = Field(None, description="not for lexical")
    like: list[str | Example] = Field(default=[], description="find more like these: ids of documents, or texts")
    unlike: list[str | Example] = Field(
        default=[], description="find less like these; documents that are named here are not found"
    )
    include_liked: bool = Field(False, description="whether documents of `like` may be found again")
    score_by: Literal["document", "window"] | None = Field(
        None, description="sparse score of the merged vector or of the best window; null: as the index is made"
    )
    passage: bool | PassageForm = Field(True, description="return the best passage of each hit")
    highlight: bool | Highlight = Field(False, description="mark the words that match in the title and the passage")
    rerank: Rerank | None = Field(None, description="rerank the best documents by a second score")
    explain: bool = Field(False, description="return matching pieces and their contributions")
    curation: bool = Field(True, description="apply the rules of the index")
    did_you_mean: bool = Field(True, description="suggest corrections of misspelt words")
    learn: bool = Field(True, description="count this query among frequent queries; false for half-typed queries")
    fields: list[str] = Field(
        default=["title", "metadata"],
        description="stored fields to return: `title`, `text`, `metadata`, `metadata.NAME`, `chapters`",
    )
    filter: Filter | None = Field(None, description="which documents may be found, by their declared metadata")
    facets: dict[str, Facet] | None = Field(
        None, description="what to count, by field; an empty object counts documents only"
    )
    sort: list[SortKey] = Field(default=[], description="order of the hits; empty: by score, best first")
    among: Among | None = Field(
        None,
        description="what is counted and sorted: all matches (default for lexical and without words), or the "
        "`candidates` best (default for sparse and hybrid)",
    )
