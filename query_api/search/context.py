"""The context of one search, which all stages share, and the results that stages pass on.

`SearchContext` holds the request, the generation and the results of earlier stages. `CuratedQuery` carries the effect
of curation rules: changed weights with their origins, boosts, hidden and pinned documents, and the report in the
response. `Hit` and `RetrievedHits` are results. A stage reads a context and returns results or a new context
(`dataclasses.replace`); no stage changes one.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from query_api.schemas.search_request import SearchRequest
from query_api.search.executor import Engine, Key, Stopwatch
from query_api.search.page_state import PageState
from query_api.search.validation import Selection
from services.access.principals import EVERYBODY, Principal
from services.curation.effects import (
    BOOST_ORIGIN,
    OVERRIDE_ORIGIN,
    SYNONYM_ORIGIN,
    BoostFactor,
    apply_boosts,
    boost_shares,
    curated_lexical_query,
)
from services.curation.matching import MatchedRules
from services.encoders.query_table import QueryTable, QueryVector
from services.index_spec import Generation, ScoreBy
from services.model_client import ModelClient
from services.opensearch.queries import LexicalField
from services.query.expansion import QueryBlend
from services.settings import Settings

# The stored fields of a document.
Source = Mapping[str, Any]
# By query piece, what each origin added to its weight.
Origins = Mapping[int, Mapping[str, float]]
_NO_WORDS = QueryVector((), (), 0)


@dataclass(frozen=True, slots=True)
class CurationTerms:
    """The terms that the analyser makes of the user's words, and the subset that a curation rule weighs."""

    all_terms: frozenset[str]
    weighed: frozenset[str]

    def origin(self, piece: str) -> str | None:
        """Return the kind of rule that an explained term comes from. A phrase has several terms in quotation marks."""
        terms = set(piece.strip('"').split())
        if not terms <= self.all_terms:
            return SYNONYM_ORIGIN
        return OVERRIDE_ORIGIN if terms <= self.weighed else None


@dataclass(frozen=True, slots=True)
class CuratedQuery:
    """The effect of an index's curation rules on one search.

    `origins`: by query piece, the weight that each rule added. `boosts`: factors of scores. `title`: the weight of
    words in the title.
    """

    matched: MatchedRules
    origins: Origins = field(default_factory=dict)
    terms: CurationTerms | None = None
    boosts: Sequence[BoostFactor] = ()
    title: float = 1.0

    def origins_of(self, query: QueryVector) -> Origins | None:
        """Return the origins of the pieces that pruning left; None where all weight comes from the words."""
        return {i: self.origins[i] for i in query.ids} if self.origins else None

    def lexical_query(self, text: str, boosts: Mapping[str, float], field: LexicalField = "lexical") -> dict[str, Any]:
        """Return the lexical query of a field. `boosts`: words beside the text, with their boosts."""
        return curated_lexical_query(text, self.matched.spans, boosts, self.title, field)

    def boost_query(self, search: dict[str, Any], *, explained: bool) -> dict[str, Any]:
        """Return a search by score with the boosts of documents."""
        return apply_boosts(search, self.boosts, named=explained)

    def excluded_ids(self, *, fused: bool) -> list[str]:
        """Return the ids of documents that no list may name: hidden ones, and in a single list pinned ones.

        Fused lists keep pinned documents, which are taken out after fusion: the scaled scores of all other documents
        depend on the best and the worst score of a list.
        """
        hidden = self.matched.hidden
        return sorted(hidden if fused else hidden | self.matched.pins.keys())

    def without_pins(self, reason: str) -> "CuratedQuery":
        """Return the query without pins, each reported as skipped. A pin is a place in one index's ranking."""
        if not self.matched.pins:
            return self
        skipped = [_skipped(pin.rule, document, reason) for document, pin in self.matched.pins.items()]
        return self._with(pins={}, skipped=[*self.matched.skipped, *skipped])

    def without_boosts_on(self, fields: Collection[str], reason: str) -> "CuratedQuery":
        """Return the query without the boosts whose filter names one of the fields, each reported as skipped."""
        dropped = [boost for boost in self.boosts if boost.fields & set(fields)]
        if not dropped:
            return self
        applied, skipped = list(self.matched.applied), list(self.matched.skipped)
        for boost in dropped:
            applied.remove({"kind": BOOST_ORIGIN, "rule": boost.rule, "matched": boost.name})
            skipped.append({"kind": BOOST_ORIGIN, "rule": boost.rule, "what": boost.name, "reason": reason})
        boosts = [boost for boost in self.boosts if boost not in dropped]
        return replace(self._with(applied=applied, skipped=skipped), boosts=boosts)

    def with_missing_pins(self, ids: Collection[str]) -> "CuratedQuery":
        """Return the query with pins reported as skipped: their documents are gone, or the request excludes them."""
        if not ids:
            return self
        skipped = [_skipped(self.matched.pins[document].rule, document, "not_found") for document in ids]
        return self._with(skipped=[*self.matched.skipped, *skipped])

    def _with(self, **members: Any) -> "CuratedQuery":
        return replace(self, matched=replace(self.matched, **members))

    def boost_factor(self, marks: Collection[str]) -> float:
        """Return the factor of the score of a document that has these boosts."""
        return math.prod(boost.factor for boost in self.boosts if boost.mark in marks)

    def remove_boosts(self, score: float, marks: Collection[str]) -> float:
        """Return a list's score without the boosts of the document."""
        for boost in self.boosts:
            if boost.mark in marks:
                score /= boost.factor
        return score

    def explain_boosts(
        self, why: Sequence[Mapping[str, Any]], marks: Collection[str], *, named: bool = True
    ) -> list[dict[str, Any]]:
        """Return the amounts that boosts added to a score, as entries beside `why`, the contributions without boosts.

        `named`: each entry shows the boost's filter.
        """
        if not why or not marks:
            return []
        score = sum(float(entry["contribution"]) for entry in why)
        return [
            {
                "list": why[0]["list"],
                "piece": name if named else BOOST_ORIGIN,
                "contribution": share,
                "expansion": False,
                "origins": {BOOST_ORIGIN: share},
            }
            for name, share in boost_shares(score, self.boosts, marks)
        ]

    def mark_explanation(self, why: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add the kind of rule to the lexical contributions that come from a rule."""
        for entry in why:
            if entry["list"] == "lexical" and self.terms is not None and "origins" not in entry:
                origin = self.terms.origin(entry["piece"])
                if origin is not None:
                    entry["origins"] = {origin: entry["contribution"]}
        return why

    def mark_query_pieces(self, pieces: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add the weights that rules added to the pruned pieces of the query."""
        for piece in pieces:
            if piece["pruned"] and piece["id"] in self.origins:
                piece["origins"] = dict(self.origins[piece["id"]])
        return pieces

    def to_response(self) -> dict[str, Any]:
        """Return the `curation` member of a response."""
        matched = self.matched
        member: dict[str, Any] = {"version": matched.version, "applied": matched.applied}
        if matched.hidden:
            member["hidden"] = len(matched.hidden)
        return member | {"skipped": matched.skipped} if matched.skipped else member


def _skipped(rule: int, pinned: str, reason: str) -> dict[str, Any]:
    return {"kind": "results", "rule": rule, "what": pinned, "reason": reason}


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
    engine: Engine
    stopwatch: Stopwatch
    selection: Selection
    score_by: ScoreBy
    query: QueryVector = _NO_WORDS
    page: PageState | None = None
    principal: Principal = EVERYBODY
    model: ModelClient | None = None
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
        """Whether the caller may learn of documents that document-level security could hide."""
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
