"""Matching of curation rules to a query: rules are compiled once a version and evaluated at every search."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from services.curation.rules import PhraseIndex, Results, Rules, Synonym, Term, phrase_key, split_words

# Limits of one query: synonym texts that are added, and documents that are pinned.
MAX_ADDED_TEXTS = 50
MAX_PINS = 50


class SynonymText(NamedTuple):
    """A text that a synonym rule adds as an alternative to a span of the query."""

    text: str
    weight: float
    rule: int


@dataclass(frozen=True, slots=True)
class CuratedSpan:
    """A span of the query (characters, end exclusive) with the effects of the rules on it.

    `factor` applies to the whole span including its synonyms.
    """

    start: int
    end: int
    text: str
    added: tuple[SynonymText, ...] = ()
    weight: float | None = None
    factor: float = 1.0
    phrase: bool = False


class PinnedPosition(NamedTuple):
    """A position and the number of the results rule that sets it."""

    place: int
    rule: int


# The report of an applied rule, or of a part of a rule that was skipped.
RuleReport = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MatchedRules:
    """The rules that apply to one query. `applied` and `skipped` are reported in the response."""

    version: int
    spans: Sequence[CuratedSpan] = ()
    pins: Mapping[str, PinnedPosition] = field(default_factory=dict)
    hidden: Set[str] = frozenset()
    applied: Sequence[RuleReport] = ()
    skipped: Sequence[RuleReport] = ()

    def with_reports(self, applied: Sequence[RuleReport] = (), skipped: Sequence[RuleReport] = ()) -> "MatchedRules":
        """Return the rules with more reports."""
        return replace(self, applied=[*self.applied, *applied], skipped=[*self.skipped, *skipped])


def skipped_part(kind: str, rule: int, what: str, reason: str = "too_many") -> RuleReport:
    """Return the report that a part of a rule (`what`) is not applied."""
    return {"kind": kind, "rule": rule, "what": what, "reason": reason}


@dataclass(slots=True)
class _Matching:
    """The parts of `MatchedRules` while they are collected."""

    spans: list[CuratedSpan] = field(default_factory=list)
    pins: dict[str, PinnedPosition] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    applied: list[RuleReport] = field(default_factory=list)
    skipped: list[RuleReport] = field(default_factory=list)

    def skip(self, kind: str, rule: int, what: str) -> None:
        self.skipped.append(skipped_part(kind, rule, what))


@dataclass(frozen=True, slots=True)
class _SynonymRule:
    """Synonym rule `number` from the view of one of its phrases: the texts that it adds there."""

    number: int
    weight: float
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _TermRule:
    """Term rule `number`."""

    number: int
    term: Term


class CompiledRules:
    """The rules of one version, compiled for matching. Version 0: rules that are not stored."""

    def __init__(self, rules: Rules, version: int = 0) -> None:
        self.rules = rules
        self.version = version
        self._spans: PhraseIndex[_SynonymRule | _TermRule] = PhraseIndex(_span_rules(rules))
        self._exact = _index_by_query(rules.results, "exact")
        self._contained = _index_by_query(rules.results, "contains")
        self._every = [i for i, rule in enumerate(rules.results) if rule.match == "every"]

    @property
    def most_hidden(self) -> int:
        """Return how many documents rules may hide for one query, beside those hidden for every query."""
        return sum(len(rule.hide) for rule in self.rules.results if rule.match != "every")

    def matched(self, query: str, max_words: int) -> MatchedRules:
        """Return the rules that apply to a query. Synonyms add words only up to `max_words` words in all."""
        words = split_words(query)
        text = [word.text for word in words]
        matched = _Matching()
        budget = _ExpansionBudget(max_words - len(text), MAX_ADDED_TEXTS)
        for match in self._spans.longest(text):
            start, end = words[match.start].start, words[match.end - 1].end
            matched.spans.append(_span(matched, budget, match.values, query[start:end], start))
        contained = {number for phrase in self._contained.find_all(text) for number in phrase.values}
        for number in sorted({*self._exact.at(text), *contained, *self._every}):
            _apply_results_rule(matched, number, self.rules.results[number])
        for hidden in matched.hidden:
            matched.pins.pop(hidden, None)
        return MatchedRules(self.version, matched.spans, matched.pins, matched.hidden, matched.applied, matched.skipped)


@dataclass(slots=True)
class _ExpansionBudget:
    """The numbers of words and of texts that may still be added to a query."""

    words: int
    texts: int

    def spend(self, length: int) -> bool:
        """Use the budget for a text of `length` words. Return False if the rest does not suffice."""
        if length > self.words or not self.texts:
            return False
        self.words -= length
        self.texts -= 1
        return True


def _span_rules(rules: Rules) -> list[tuple[tuple[str, ...], _SynonymRule | _TermRule]]:
    rules_by_phrase: list[tuple[tuple[str, ...], _SynonymRule | _TermRule]] = []
    for number, rule in enumerate(rules.synonyms):
        for phrase, added in _synonym_directions(rule).items():
            rules_by_phrase.append((phrase, _SynonymRule(number, rule.weight, added)))
    rules_by_phrase += [(phrase_key(term.term), _TermRule(number, term)) for number, term in enumerate(rules.terms)]
    return rules_by_phrase


def _synonym_directions(rule: Synonym) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return the texts to add for each phrase that a query may contain: the alternatives that differ from it."""
    added = {phrase_key(text): text for text in (rule.words or rule.to)}
    return {
        phrase: tuple(text for other, text in added.items() if other != phrase)
        for phrase in dict.fromkeys(phrase_key(text) for text in (rule.words or rule.from_))
    }


def _index_by_query(results: Sequence[Results], match: str) -> PhraseIndex[int]:
    return PhraseIndex((phrase_key(rule.query), i) for i, rule in enumerate(results) if rule.match == match)


def _span(
    matched: _Matching, budget: _ExpansionBudget, rules: Sequence[_SynonymRule | _TermRule], text: str, start: int
) -> CuratedSpan:
    added: dict[tuple[str, ...], SynonymText] = {}
    term: Term | None = None
    for rule in rules:
        if isinstance(rule, _TermRule):
            term = rule.term
            matched.applied.append({"kind": "term", "rule": rule.number, "matched": text})
            continue
        before = len(added)
        for synonym in rule.texts:
            if phrase_key(synonym) in added:
                continue
            if budget.spend(len(phrase_key(synonym))):
                added[phrase_key(synonym)] = SynonymText(synonym, rule.weight, rule.number)
            else:
                matched.skip("synonym", rule.number, synonym)
        if len(added) > before:
            matched.applied.append({"kind": "synonym", "rule": rule.number, "matched": text})
    span = CuratedSpan(start, start + len(text), text, tuple(added.values()))
    return span if term is None else replace(span, weight=term.weight, factor=term.factor, phrase=term.phrase)


def _apply_results_rule(matched: _Matching, number: int, rule: Results) -> None:
    reason = {"matched": rule.query} if rule.query else {}
    matched.applied.append({"kind": "results", "rule": number} | reason)
    matched.hidden.update(rule.hide)
    occupied = {pin.place for pin in matched.pins.values()}
    for pin in rule.pin:
        if pin.id in matched.pins:
            continue
        if len(matched.pins) >= MAX_PINS:
            matched.skip("results", number, pin.id)
            continue
        place = next(place for place in range(pin.position, pin.position + MAX_PINS + 1) if place not in occupied)
        occupied.add(place)
        matched.pins[pin.id] = PinnedPosition(place, number)
