"""One search on its way through the stages: what was asked, of which generation, and what was found so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from query_api.parts import Parts
from query_api.search.curated import Curated
from query_api.search.engine import Engine
from query_api.search.part import Part
from query_api.search.request import SearchRequest
from query_api.search.selection import Selection
from query_api.search.stopwatch import Stopwatch
from services.index_spec import Generation, ScoreBy
from services.query_blend import Blend
from services.query_table import QueryTable, QueryVector

Source = Mapping[str, Any]


@dataclass(slots=True)
class Asked:
    """A request that passed the limits, with all that the stages need to answer it.

    `query` is the vector that the sparse list is asked with: what the table made of the words and what other stages
    made of that. `part`: what of the ranking is asked for; None: its top.
    """

    parts: Parts
    generation: Generation
    table: QueryTable
    request: SearchRequest
    query: QueryVector
    watch: Stopwatch
    engine: Engine
    selection: Selection
    part: Part | None = None
    # Of each piece of `query`, what every origin gave to its weight; None while all of it is the words'.
    origins: Mapping[int, Mapping[str, float]] | None = None
    # Words of earlier turns that keyword search gets too, with their boosts.
    carried: Mapping[str, float] = field(default_factory=dict)
    # Ids of documents that are not to be found.
    left_out: Sequence[str] = ()
    # What the rules of the index make of the search, and how many hits of the page they put at their places.
    curated: Curated | None = None
    pinned: int = 0
    # What the answer says of feedback.
    fed_back: dict[str, list[str]] | None = None
    # Whether the keyword list was asked for and found nothing.
    unmatched: bool = False
    # The generations that are searched with this very search, by their own names, when they are several.
    across: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """What lists are asked of."""
        return ",".join(self.across) or self.generation.physical

    # What was counted, as the answer shows it.
    counts: dict[str, Any] = field(default_factory=dict)

    @property
    def mode(self) -> str:
        """How documents are found: as the request says, or, without words, by looking through them (`browse`)."""
        return "browse" if self.request.browses else self.request.mode

    @property
    def blend(self) -> Blend:
        """The query with its origins, and back: stages that change the one change the other."""
        return Blend.of(self.query) if self.origins is None else Blend(self.query, self.origins)

    @blend.setter
    def blend(self, blend: Blend) -> None:
        self.query, self.origins = blend.vector, blend.origins

    @property
    def score_by(self) -> ScoreBy:
        """What the sparse scores of this search are."""
        return self.request.score_by or self.generation.spec.scored_by[0]

    @property
    def room(self) -> int:
        """Hits of the page that the lists give."""
        return self.request.size - self.pinned

    @property
    def timeout(self) -> float:
        """Seconds that OpenSearch may take."""
        return self.parts.settings.search_timeout


@dataclass(slots=True)
class Found:
    """A document that a list named. `scores` are its own in each list, none where documents are not scored but sorted;
    `source` is None for one that is gone.

    `index` is the generation that it is of, where several are searched. `fusion`, `shares` and `boosts` are for those
    who ask why: share and scaled score of each list that was fused, what each term (of a field) added to the keyword
    score, and the marks of the boosts that the document has.
    """

    id: str
    score: float
    scores: dict[str, float]
    source: Source | None = None
    shares: Mapping[tuple[str, str], float] = field(default_factory=dict)
    fusion: Mapping[str, tuple[float, float]] | None = None
    reranking: Mapping[str, tuple[float, float]] | None = None
    index: str = ""
    pinned: bool = False
    # Which chapter or window of the document was found, counted from 0; None: the document.
    part: int | None = None
    boosts: Sequence[str] = ()
