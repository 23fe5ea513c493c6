"""The context of one search, which all stages share, and the results that stages pass on.

`SearchContext` holds the request, the generation and the results of earlier stages. `Hit` and `RetrievedHits` are
results. A stage reads a context and returns results or a new context (`dataclasses.replace`); no stage changes one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from query_api.schemas.search_request import SearchRequest
from query_api.search.curation import CuratedQuery, Origins
from query_api.search.executor import Executor, Key, Stopwatch
from query_api.search.page_state import PageState
from query_api.search.validation import Selection
from services.access.principals import EVERYBODY, Principal
from services.encoders.dense_query_table import DenseQueryEncoder
from services.encoders.query_table import QueryTable, QueryVector
from services.index_spec import Generation, ScoreBy
from services.model_client import ModelClient
from services.query.expansion import QueryBlend
from services.settings import Settings

# The stored fields of a document.
Source = Mapping[str, Any]
_NO_WORDS = QueryVector((), (), 0)


@dataclass(frozen=True, slots=True)
class SearchContext:
    """A validated request with all that the stages need to answer it from one generation.

    `query`: the vector that the sparse list searches with. `score_by`: the kind of sparse scores. `page`: the part of
    the ranking that is requested; None: its top. `targets`: names of all generations that this search is sent to, where
    several indexes are searched alike; empty for a search of one index.
    """

    generation: Generation
    table: QueryTable
    request: SearchRequest
    settings: Settings
    executor: Executor
    stopwatch: Stopwatch
    selection: Selection
    score_by: ScoreBy
    query: QueryVector = _NO_WORDS
    page: PageState | None = None
    principal: Principal = EVERYBODY
    model: ModelClient | None = None
    # Encodes queries for the stored dense vectors without a model; None: the index has no vectors or no table.
    dense: DenseQueryEncoder | None = None
    # By piece of `query`, what each origin added to its weight; None while all weight comes from the words.
    origins: Origins | None = None
    # Words of earlier turns for the lexical list, with their boosts.
    context_words: Mapping[str, float] = field(default_factory=dict)
    # Ids of documents that no list may name.
    excluded_ids: Sequence[str] = ()
    # The effect of curation rules; None: the index has none, or the request ignores them.
    curated: CuratedQuery | None = None
    # Number of the page's hits that curation rules pin to a place.
    pinned: int = 0
    targets: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """The index names of the request to OpenSearch, separated by commas."""
        return ",".join(self.targets) or self.generation.physical

    @property
    def mode(self) -> str:
        """The mode of the request, or `browse`, which lists documents without words."""
        return "browse" if self.request.browses else self.request.mode

    @property
    def blend(self) -> QueryBlend:
        """The query with the origins of its weights."""
        return QueryBlend.of(self.query) if self.origins is None else QueryBlend(self.query, self.origins)

    def with_blend(self, blend: QueryBlend) -> "SearchContext":
        """Return the context with another query and its origins."""
        return replace(self, query=blend.vector, origins=blend.origins)

    @property
    def list_size(self) -> int:
        """The number of the page's hits that come from lists, without pinned documents."""
        return self.request.size - self.pinned

    @property
    def timeout(self) -> float:
        """The seconds that OpenSearch may take."""
        return self.settings.search_timeout

    @property
    def is_unrestricted(self) -> bool:
        """Return whether the caller may learn of documents that document-level security could hide."""
        return self.principal.filter is None


class Hit(NamedTuple):
    """A document, chapter or passage in a list. Stages return hits; `_replace` makes new ones.

    `physical`: name of the generation's index. `scores`: by list, the hit's own score; empty where hits have no score.
    `source`: the fields that were read; None: not read, or the document is gone. `number`: the chapter or window of the
    document, from 0; None: the whole document. `boosts`: marks of the boosts that the document has.

    For explanations: `shares` are contributions to the lexical score by field and term; `fusion` and `reranking` hold
    the share and the scaled score by list.
    """

    id: str
    physical: str
    score: float
    scores: Mapping[str, float]
    source: Source | None = None
    shares: Mapping[tuple[str, str], float] = {}
    fusion: Mapping[str, tuple[float, float]] | None = None
    reranking: Mapping[str, tuple[float, float]] | None = None
    pinned: bool = False
    number: int | None = None
    boosts: Sequence[str] = ()

    def with_source(self, source: Source | None) -> "Hit":
        """Return the hit with a source, in half of the time of `_replace`: every hit of a page gets one."""
        return Hit(
            self.id, self.physical, self.score, self.scores, source, self.shares, self.fusion, self.reranking,
            self.pinned, self.number, self.boosts,
        )  # fmt: skip

    @property
    def key(self) -> Key:
        """The generation's index name and the document's id: several indexes may have the same id."""
        return self.physical, self.id


@dataclass(frozen=True, slots=True)
class RetrievedHits:
    """The hits of a page, as a retrieval stage returns them.

    `page`: the state after the page. `counts`: `facets` and `counted` of the response. `lexical_empty`: no document is
    in the lexical list. `read`: the hits already have sources and explanations. `pinned_scores`: scores of pinned
    documents in the fused ranking, which leaves them out.
    """

    hits: Sequence[Hit]
    page: PageState | None = None
    counts: Mapping[str, Any] = field(default_factory=dict)
    lexical_empty: bool = False
    read: bool = False
    pinned_scores: Mapping[str, float] = field(default_factory=dict)
