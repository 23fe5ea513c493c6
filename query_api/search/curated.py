"""What the rules of an index make of one search: its vector, the query of each list, the places of its hits."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.curation.boosts import BOOST, Factor, boost_shares, boosted
from services.curation.lexical import curated_lexical
from services.curation.matching import Matched
from services.curation.vector import OVERRIDE, SYNONYM, curated_blend
from services.opensearch.queries import KeywordField
from services.query_table import QueryTable, QueryVector


@dataclass(frozen=True, slots=True)
class OwnTerms:
    """The terms that keyword search makes of the user's words, and those of them that a rule weighs."""

    every: frozenset[str]
    weighed: frozenset[str]

    def origin(self, piece: str) -> str | None:
        """Where a term of an explanation comes from; several in quotation marks are a phrase."""
        terms = set(piece.strip('"').split())
        if not terms <= self.every:
            return SYNONYM
        return OVERRIDE if terms <= self.weighed else None


@dataclass(slots=True)
class Curated:
    """What the rules of an index make of one search. `boosts` are factors of scores, `title` what its words count."""

    matched: Matched
    origins: dict[int, Mapping[str, float]] = field(default_factory=dict)
    terms: OwnTerms | None = None
    fused: dict[str, float] = field(default_factory=dict)
    boosts: Sequence[Factor] = ()
    title: float = 1.0

    def vector(self, query: QueryVector, table: QueryTable, most: int) -> QueryVector:
        """The vector with the rules' weights and what they add to it."""
        if not self.matched.spans:
            return query
        blend = curated_blend(query, self.matched, table, most)
        self.origins = dict(blend.origins)
        return blend.vector

    def origins_of(self, query: QueryVector) -> Mapping[int, Mapping[str, float]] | None:
        """Where the weights of what is left of `vector` come from; None while all of it is the words'."""
        return {i: self.origins[i] for i in query.ids} if self.origins else None

    def lexical(self, text: str, also: Mapping[str, float], field: KeywordField = "lexical") -> dict[str, Any]:
        """The keyword query, with words beside the text."""
        return curated_lexical(text, self.matched.spans, also, self.title, field)

    def boosted(self, search: dict[str, Any], *, explained: bool) -> dict[str, Any]:
        """A search by score, with the factors that documents have."""
        return boosted(search, self.boosts, named=explained)

    def left_out(self, *, fused: bool) -> list[str]:
        """Documents that no list may name: what is hidden, and what is pinned where the list is the ranking.

        Lists that are fused keep the pinned documents, which are left out afterwards (`unpinned`): the scores of all
        others depend on the best and the worst of a list.
        """
        hidden = self.matched.hidden
        return sorted(hidden if fused else hidden | self.matched.pins.keys())

    def unpinned(self, fused: list[tuple[str, float]]) -> list[tuple[str, float]]:
        """A fused list without the pinned documents, whose scores in it are kept."""
        pins = self.matched.pins
        if not pins:
            return fused
        self.fused = {one: score for one, score in fused if one in pins}
        return [(one, score) for one, score in fused if one not in pins]

    def unplace(self, reason: str) -> None:
        """Notes that nothing is pinned: a place is one of the ranking of this index, by its scores."""
        for one, pin in self.matched.pins.items():
            self.matched.skip("results", pin.rule, one, reason)
        self.matched.pins.clear()

    def unboost(self, fields: Collection[str], reason: str) -> None:
        """Leaves out the boosts that ask about one of these fields."""
        for one in self.boosts:
            if one.fields & set(fields):
                self.matched.applied.remove({"kind": BOOST, "rule": one.rule, "matched": one.name})
                self.matched.skip(BOOST, one.rule, one.name, reason)
        self.boosts = [one for one in self.boosts if not one.fields & set(fields)]

    def miss(self, pinned: str) -> None:
        """Notes a pinned document that is not there, or not among what the request asks for."""
        self.matched.skip("results", self.matched.pins[pinned].rule, pinned, "not_found")

    def factor(self, matched: Collection[str]) -> float:
        """What the score of a document with these boosts is multiplied by."""
        return math.prod(one.factor for one in self.boosts if one.mark in matched)

    def unboosted(self, score: float, matched: Collection[str]) -> float:
        """The score of a list without the boosts that the document had."""
        for one in self.boosts:
            if one.mark in matched:
                score /= one.factor
        return score

    def boost_why(
        self, why: Sequence[Mapping[str, Any]], matched: Collection[str], *, named: bool = True
    ) -> list[dict[str, Any]]:
        """What boosts added to the contributions of one list, which are those of a score without them. `named`: each
        with its filter.
        """
        if not why or not matched:
            return []
        score = sum(float(entry["contribution"]) for entry in why)
        return [
            {
                "list": why[0]["list"],
                "piece": name if named else BOOST,
                "contribution": share,
                "expansion": False,
                "origins": {BOOST: share},
            }
            for name, share in boost_shares(score, self.boosts, matched)
        ]

    def marked(self, why: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Contributions of the keyword list with the rule that they come from, where it is one."""
        for entry in why:
            if entry["list"] == "lexical" and self.terms is not None and "origins" not in entry:
                origin = self.terms.origin(entry["piece"])
                if origin is not None:
                    entry["origins"] = {origin: entry["contribution"]}
        return why

    def marked_pieces(self, pieces: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Pieces of the query, with what rules gave to those that were pruned as well."""
        for piece in pieces:
            if piece["pruned"] and piece["id"] in self.origins:
                piece["origins"] = dict(self.origins[piece["id"]])
        return pieces

    def shown(self) -> dict[str, Any]:
        """What an answer says of the rules."""
        said: dict[str, Any] = {"version": self.matched.version, "applied": self.matched.applied}
        if self.matched.hidden:
            said["hidden"] = len(self.matched.hidden)
        return said | {"skipped": self.matched.skipped} if self.matched.skipped else said
