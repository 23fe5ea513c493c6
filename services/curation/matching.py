"""Which rules of an index concern a query: compiled once a version, asked at every search."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from services.curation.rules import PhraseIndex, Results, Rules, Synonym, Term, phrase_key, split_words

# Texts that are added to one query, and documents that are put at a place in one answer.
MAX_ADDED_TEXTS = 50
MAX_PINS = 50


class SynonymText(NamedTuple):
    """A text that stands for a stretch of the query as well, by a rule of the synonyms."""

    text: str
    weight: float
    rule: int


@dataclass(frozen=True, slots=True)
class CuratedSpan:
    """A stretch of the query (characters, end exclusive) and what rules make of it.

    `factor` is of the whole, what is added included.
    """

    start: int
    end: int
    text: str
    added: tuple[SynonymText, ...] = ()
    weight: float | None = None
    factor: float = 1.0
    phrase: bool = False


class PinnedPosition(NamedTuple):
    """A place, and the rule of the results that gives it."""

    place: int
    rule: int


@dataclass(slots=True)
class MatchedRules:
    """What the rules say of one query. `applied` and `skipped` are for the answer."""

    version: int
    spans: list[CuratedSpan] = field(default_factory=list)
    pins: dict[str, PinnedPosition] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    applied: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def skip(self, kind: str, rule: int, what: str, reason: str = "too_many") -> None:
        """Notes what a rule says and what is not done."""
        self.skipped.append({"kind": kind, "rule": rule, "what": what, "reason": reason})


@dataclass(frozen=True, slots=True)
class _SynonymRule:
    """Rule `number` of the synonyms, seen from one of its phrases: the texts that it adds there."""

    number: int
    weight: float
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _TermRule:
    """Rule `number` of the terms."""

    number: int
    term: Term


class CompiledRules:
    """The rules of one version, ready to be asked. Version 0: rules that are not stored."""

    def __init__(self, rules: Rules, version: int = 0) -> None:
        self.rules = rules
        self.version = version
        self._spans: PhraseIndex[_SynonymRule | _TermRule] = PhraseIndex(_span_rules(rules))
        self._exact = _index_by_query(rules.results, "exact")
        self._contained = _index_by_query(rules.results, "contains")
        self._every = [i for i, rule in enumerate(rules.results) if rule.match == "every"]

    @property
    def most_hidden(self) -> int:
        """As many documents as rules may hide for one query beside those that are hidden for every one."""
        return sum(len(rule.hide) for rule in self.rules.results if rule.match != "every")

    def matched(self, query: str, max_words: int) -> MatchedRules:
        """What the rules say of a query; nothing is added to it beyond `max_words` words in all."""
        found = split_words(query)
        text = [word.text for word in found]
        matched = MatchedRules(self.version)
        budget = _ExpansionBudget(max_words - len(text), MAX_ADDED_TEXTS)
        for stretch in self._spans.longest(text):
            start, end = found[stretch.start].start, found[stretch.end - 1].end
            matched.spans.append(_span(matched, budget, stretch.held, query[start:end], start))
        contained = {number for here in self._contained.everywhere(text) for number in here.held}
        for number in sorted({*self._exact.at(text), *contained, *self._every}):
            _apply_results_rule(matched, number, self.rules.results[number])
        for hidden in matched.hidden:
            matched.pins.pop(hidden, None)
        return matched


@dataclass(slots=True)
class _ExpansionBudget:
    """What may still be added to a query."""

    words: int
    texts: int

    def takes(self, length: int) -> bool:
        if length > self.words or not self.texts:
            return False
        self.words -= length
        self.texts -= 1
        return True


def _span_rules(rules: Rules) -> list[tuple[tuple[str, ...], _SynonymRule | _TermRule]]:
    found: list[tuple[tuple[str, ...], _SynonymRule | _TermRule]] = []
    for number, rule in enumerate(rules.synonyms):
        for asked, added in _synonym_directions(rule).items():
            found.append((asked, _SynonymRule(number, rule.weight, added)))
    found += [(phrase_key(term.term), _TermRule(number, term)) for number, term in enumerate(rules.terms)]
    return found


def _synonym_directions(rule: Synonym) -> dict[tuple[str, ...], tuple[str, ...]]:
    """For each phrase that may be asked for, the texts that are added: those that are other words."""
    added = {phrase_key(text): text for text in (rule.words or rule.to)}
    return {
        asked: tuple(text for other, text in added.items() if other != asked)
        for asked in dict.fromkeys(phrase_key(text) for text in (rule.words or rule.from_))
    }


def _index_by_query(results: Sequence[Results], match: str) -> PhraseIndex[int]:
    return PhraseIndex((phrase_key(rule.query), i) for i, rule in enumerate(results) if rule.match == match)


def _span(
    matched: MatchedRules, budget: _ExpansionBudget, held: Sequence[_SynonymRule | _TermRule], text: str, start: int
) -> CuratedSpan:
    added: dict[tuple[str, ...], SynonymText] = {}
    term: Term | None = None
    for rule in held:
        if isinstance(rule, _TermRule):
            term = rule.term
            matched.applied.append({"kind": "term", "rule": rule.number, "matched": text})
            continue
        before = len(added)
        for one in rule.texts:
            if phrase_key(one) in added:
                continue
            if budget.takes(len(phrase_key(one))):
                added[phrase_key(one)] = SynonymText(one, rule.weight, rule.number)
            else:
                matched.skip("synonym", rule.number, one)
        if len(added) > before:
            matched.applied.append({"kind": "synonym", "rule": rule.number, "matched": text})
    span = CuratedSpan(start, start + len(text), text, tuple(added.values()))
    return span if term is None else replace(span, weight=term.weight, factor=term.factor, phrase=term.phrase)


def _apply_results_rule(matched: MatchedRules, number: int, rule: Results) -> None:
    because = {"matched": rule.query} if rule.query else {}
    matched.applied.append({"kind": "results", "rule": number} | because)
    matched.hidden.update(rule.hide)
    taken = {pin.place for pin in matched.pins.values()}
    for pin in rule.pin:
        if pin.id in matched.pins:
            continue
        if len(matched.pins) >= MAX_PINS:
            matched.skip("results", number, pin.id)
            continue
        place = next(place for place in range(pin.position, pin.position + MAX_PINS + 1) if place not in taken)
        taken.add(place)
        matched.pins[pin.id] = PinnedPosition(place, number)
