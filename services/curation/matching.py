"""Which rules of an index concern a query: compiled once a version, asked at every search."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from services.curation.rules import Results, Rules, Synonym, Term
from services.curation.words import Phrases, key, words

# Texts that are added to one query, and documents that are put at a place in one answer.
MAX_ADDED = 50
MAX_PINS = 50


class Added(NamedTuple):
    """A text that stands for a stretch of the query as well, by a rule of the synonyms."""

    text: str
    weight: float
    rule: int


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the query (characters, end exclusive) and what rules make of it.

    `factor` is of the whole, what is added included.
    """

    start: int
    end: int
    text: str
    added: tuple[Added, ...] = ()
    weight: float | None = None
    factor: float = 1.0
    phrase: bool = False


class Pinned(NamedTuple):
    """A place, and the rule of the results that gives it."""

    place: int
    rule: int


@dataclass(slots=True)
class Matched:
    """What the rules say of one query. `applied` and `skipped` are for the answer."""

    version: int
    spans: list[Span] = field(default_factory=list)
    pins: dict[str, Pinned] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    applied: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def skip(self, kind: str, rule: int, what: str, reason: str = "too_many") -> None:
        """Notes what a rule says and what is not done."""
        self.skipped.append({"kind": kind, "rule": rule, "what": what, "reason": reason})


@dataclass(frozen=True, slots=True)
class _Synonyms:
    """Rule `number` of the synonyms, seen from one of its phrases: the texts that it adds there."""

    number: int
    weight: float
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Weighed:
    """Rule `number` of the terms."""

    number: int
    term: Term


class Compiled:
    """The rules of one version, ready to be asked. Version 0: rules that are not stored."""

    def __init__(self, rules: Rules, version: int = 0) -> None:
        self.rules = rules
        self.version = version
        self._spans: Phrases[_Synonyms | _Weighed] = Phrases(_span_rules(rules))
        self._exact = _by_query(rules.results, "exact")
        self._contained = _by_query(rules.results, "contains")
        self._every = [i for i, rule in enumerate(rules.results) if rule.match == "every"]

    @property
    def most_hidden(self) -> int:
        """As many documents as rules may hide for one query beside those that are hidden for every one."""
        return sum(len(rule.hide) for rule in self.rules.results if rule.match != "every")

    def matched(self, query: str, max_words: int) -> Matched:
        """What the rules say of a query; nothing is added to it beyond `max_words` words in all."""
        found = words(query)
        text = [word.text for word in found]
        matched = Matched(self.version)
        budget = _Budget(max_words - len(text), MAX_ADDED)
        for stretch in self._spans.longest(text):
            start, end = found[stretch.start].start, found[stretch.end - 1].end
            matched.spans.append(_span(matched, budget, stretch.held, query[start:end], start))
        contained = {number for here in self._contained.everywhere(text) for number in here.held}
        for number in sorted({*self._exact.at(text), *contained, *self._every}):
            _show(matched, number, self.rules.results[number])
        for hidden in matched.hidden:
            matched.pins.pop(hidden, None)
        return matched


@dataclass(slots=True)
class _Budget:
    """What may still be added to a query."""

    words: int
    texts: int

    def takes(self, length: int) -> bool:
        if length > self.words or not self.texts:
            return False
        self.words -= length
        self.texts -= 1
        return True


def _span_rules(rules: Rules) -> list[tuple[tuple[str, ...], _Synonyms | _Weighed]]:
    found: list[tuple[tuple[str, ...], _Synonyms | _Weighed]] = []
    for number, rule in enumerate(rules.synonyms):
        for asked, added in _directions(rule).items():
            found.append((asked, _Synonyms(number, rule.weight, added)))
    found += [(key(term.term), _Weighed(number, term)) for number, term in enumerate(rules.terms)]
    return found


def _directions(rule: Synonym) -> dict[tuple[str, ...], tuple[str, ...]]:
    """For each phrase that may be asked for, the texts that are added: those that are other words."""
    added = {key(text): text for text in (rule.words or rule.to)}
    return {
        asked: tuple(text for other, text in added.items() if other != asked)
        for asked in dict.fromkeys(key(text) for text in (rule.words or rule.from_))
    }


def _by_query(results: Sequence[Results], match: str) -> Phrases[int]:
    return Phrases((key(rule.query), i) for i, rule in enumerate(results) if rule.match == match)


def _span(matched: Matched, budget: _Budget, held: Sequence[_Synonyms | _Weighed], text: str, start: int) -> Span:
    added: dict[tuple[str, ...], Added] = {}
    term: Term | None = None
    for rule in held:
        if isinstance(rule, _Weighed):
            term = rule.term
            matched.applied.append({"kind": "term", "rule": rule.number, "matched": text})
            continue
        before = len(added)
        for one in rule.texts:
            if key(one) in added:
                continue
            if budget.takes(len(key(one))):
                added[key(one)] = Added(one, rule.weight, rule.number)
            else:
                matched.skip("synonym", rule.number, one)
        if len(added) > before:
            matched.applied.append({"kind": "synonym", "rule": rule.number, "matched": text})
    span = Span(start, start + len(text), text, tuple(added.values()))
    return span if term is None else replace(span, weight=term.weight, factor=term.factor, phrase=term.phrase)


def _show(matched: Matched, number: int, rule: Results) -> None:
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
        matched.pins[pin.id] = Pinned(place, number)
