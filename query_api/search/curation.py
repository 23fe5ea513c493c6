"""Curation rules in one search: which version applies, and their effect on the query.

`CuratedQuery` carries the effect: changed weights with their origins, boosts, hidden and pinned documents, and the
report in the response.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from query_api.index_cache import CurationCache
from query_api.schemas.search_request import SearchRequest
from query_api.search.page_state import PageState
from query_api.search.validation import is_scored, limits_of
from services.curation.effects import (
    BOOST_ORIGIN,
    OVERRIDE_ORIGIN,
    SYNONYM_ORIGIN,
    BoostFactor,
    apply_boosts,
    boost_shares,
    compile_boosts,
    curated_lexical_query,
    describe_filter,
)
from services.curation.matching import CompiledRules, MatchedRules, RuleReport, skipped_part
from services.curation.rules import Rules
from services.encoders.query_table import QueryVector
from services.filters.parsing import FilterLimits
from services.index_spec import Generation
from services.opensearch.queries import LexicalField
from services.settings import Settings

# By query piece, what each origin added to its weight.
Origins = Mapping[int, Mapping[str, float]]


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
        skipped = [skipped_part("results", pin.rule, document, reason) for document, pin in self.matched.pins.items()]
        return replace(self, matched=replace(self.matched.with_reports(skipped=skipped), pins={}))

    def without_boosts_on(self, fields: Collection[str], reason: str) -> "CuratedQuery":
        """Return the query without the boosts whose filter names one of the fields, each reported as skipped."""
        dropped = [boost for boost in self.boosts if boost.fields & set(fields)]
        if not dropped:
            return self
        applied = list(self.matched.applied)
        for boost in dropped:
            applied.remove({"kind": "boost", "rule": boost.rule, "matched": boost.name})
        skipped = [skipped_part("boost", boost.rule, boost.name, reason) for boost in dropped]
        matched = replace(self.matched, applied=applied).with_reports(skipped=skipped)
        return replace(self, matched=matched, boosts=[boost for boost in self.boosts if boost not in dropped])

    def with_missing_pins(self, ids: Collection[str]) -> "CuratedQuery":
        """Return the query with pins reported as skipped: their documents are gone, or the request excludes them."""
        if not ids:
            return self
        skipped = [skipped_part("results", self.matched.pins[document].rule, document, "not_found") for document in ids]
        return replace(self, matched=self.matched.with_reports(skipped=skipped))

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


async def rules_of(
    curations: CurationCache,
    generation: Generation,
    request: SearchRequest,
    page: PageState | None = None,
    proposed: CompiledRules | None = None,
) -> CompiledRules | None:
    """Return the rules of a search: proposed rules, else those of the first page, else the index's newest rules.

    Raises BackendUnavailable (`curation_unavailable`, `curation_unreadable`), NotFound (`cursor_expired`).
    """
    if not request.curation:
        return None
    rules = proposed or curations.of(generation)
    current = 0 if rules is None else rules.version
    version = current if page is None else page.rules.get(generation.index, current)
    return rules if version == current else await curations.earlier(generation, version)


def curate_query(
    rules: CompiledRules, generation: Generation, request: SearchRequest, settings: Settings
) -> CuratedQuery:
    """Return the effect of the rules on a request."""
    curated = CuratedQuery(rules.matched(request.query, settings.max_query_pieces))
    return (
        _with_boosts(curated, rules.rules, generation, request, limits_of(settings)) if is_scored(request) else curated
    )


def _with_boosts(
    curated: CuratedQuery, rules: Rules, generation: Generation, request: SearchRequest, limits: FilterLimits
) -> CuratedQuery:
    """Add boosts and field weights, which apply to any words.

    Rules that name a field that the generation lacks are reported as skipped.
    """
    applied: list[RuleReport] = []
    skipped: list[RuleReport] = []
    boosts = []
    for number, boost in enumerate(compile_boosts(rules, generation.spec.fields, limits) if rules.boosts else ()):
        if isinstance(boost, BoostFactor):
            boosts.append(boost)
            applied.append({"kind": "boost", "rule": number, "matched": boost.name})
        else:
            skipped.append(skipped_part("boost", number, describe_filter(rules.boosts[number].filter), "unfit"))
    title = 1.0
    if rules.fields.title != 1 and request.mode != "sparse":
        if request.unit != "document":
            skipped.append(skipped_part("field", 0, "title", "by_unit"))
        elif generation.titles:
            title = rules.fields.title
            applied.append({"kind": "field", "rule": 0, "matched": "title"})
        else:
            skipped.append(skipped_part("field", 0, "title", "unfit"))
    if not applied and not skipped:
        return curated
    return replace(curated, matched=curated.matched.with_reports(applied, skipped), boosts=boosts, title=title)
