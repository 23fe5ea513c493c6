"""Effects of curation rules on a query: the lexical query, the sparse query vector, pinned documents and boosts.

`MatchedRules` (from `services.curation.matching`) says which rules apply. Each function here applies one kind of
effect, and a boost multiplies the score of a document equally in every list. `check_rules` validates rules against the
index before they are stored. No I/O.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import orjson

from services.curation.matching import CuratedSpan, MatchedRules, RuleReport, skipped_part
from services.curation.rules import MAX_RULES_BYTES, Rules, phrase_key
from services.encoders.query_table import QueryTable, QueryVector
from services.errors import InvalidInput, TooLarge
from services.filters.parsing import FilterLimits, parse_filter
from services.filters.tree import Filter, iter_conditions
from services.index_spec import FieldType, Generation
from services.opensearch.queries import Clause, LexicalField, build_filter_clause, lexical_query
from services.query.expansion import OriginWeights, QueryBlend

SYNONYM_ORIGIN, OVERRIDE_ORIGIN = "synonym", "override"
BOOST_ORIGIN = "boost"

# Conditions of all boosts of an index. Every search evaluates them for every document that it scores.
MAX_BOOST_CONDITIONS = 100

# Pieces of one rule text. Eight words have far fewer; a text with more is not made of words of this encoder.
MAX_TEXT_PIECES = 64
_MAX_SHOWN_CHARACTERS = 80

_T = TypeVar("_T")


def curated_lexical_query(
    text: str,
    spans: Sequence[CuratedSpan],
    also: Mapping[str, float],
    title: float = 1.0,
    field: LexicalField = "lexical",
) -> dict[str, Any]:
    """Return the lexical query of a text with its curated spans and extra words (`also`, as in `lexical_query`).

    BM25 sums over words, so the parts between spans together get the score of the whole text. A span and its synonyms
    are alternatives, and the best counts (Lucene's DisjunctionMaxQuery): a document with all of them is not twice as
    relevant. A synonym of several words is searched as a phrase, because "infarction" alone is not a synonym of "heart
    attack".

    `title`: weight of title words. They count once with the text; a weight above 1 adds BM25 over titles alone, which
    finds no further documents. Title weights apply to the documents' own `field` only.
    """
    words = _field_query(field, text, spans, also)
    if title == 1 or field != "lexical":
        return words
    title_words = {"bool": {"should": [_field_query("title_words", text, spans, also)], "boost": title - 1}}
    return {"bool": {"should": [words, title_words]}}


def _field_query(
    field: LexicalField, text: str, spans: Sequence[CuratedSpan], also: Mapping[str, float]
) -> dict[str, Any]:
    if not spans:
        return lexical_query(text, also, field)
    clauses: list[dict[str, Any]] = []
    at = 0
    for span in spans:
        if text[at : span.start].strip():
            clauses.append(lexical_query(text[at : span.start], field=field))
        if span.factor:
            clauses.append(_alternatives(field, span))
        at = span.end
    if text[at:].strip():
        clauses.append(lexical_query(text[at:], field=field))
    clauses += [_match_query(field, word, boost) for word, boost in also.items()]
    if not clauses:
        return {"match_none": {}}
    return clauses[0] if len(clauses) == 1 else {"bool": {"should": clauses}}


def _alternatives(field: LexicalField, span: CuratedSpan) -> dict[str, Any]:
    build = _phrase_query if span.phrase else _match_query
    original = build(field, span.text, span.factor)
    if not span.added:
        return original
    synonyms = [_phrase_query(field, synonym.text, synonym.weight * span.factor) for synonym in span.added]
    return {"dis_max": {"queries": [original, *synonyms]}}


def _match_query(field: LexicalField, text: str, boost: float) -> dict[str, Any]:
    return {"match": {field: {"query": text} | _boost_option(boost)}}


def _phrase_query(field: LexicalField, text: str, boost: float) -> dict[str, Any]:
    return {"match_phrase": {field: {"query": text} | _boost_option(boost)}}


def _boost_option(boost: float) -> dict[str, float]:
    return {} if boost == 1 else {"boost": boost}


def curate_query_vector(
    query: QueryVector, matched: MatchedRules, table: QueryTable, max_pieces: int
) -> tuple[QueryBlend, MatchedRules]:
    """Return the query vector with the weights of term rules and the pieces of synonyms, and the rules.

    A piece of the query keeps its weight when a synonym has it too. The heavier weight of two synonyms counts. A
    synonym that would make the vector longer than `max_pieces` is skipped, and the returned rules report it.
    """
    if not matched.spans:
        return QueryBlend.of(query), matched
    original = query.by_id()
    weights = dict(original)
    # A repeated term is weighted once.
    for span in {phrase_key(span.text): span for span in matched.spans}.values():
        _override_weights(weights, span, table)
    override = {i: weight - original.get(i, 0.0) for i, weight in weights.items() if weight != original.get(i)}
    positive = {i: weight for i, weight in weights.items() if weight > 0}
    added, skipped = _synonym_weights(positive, matched.spans, table, max_pieces)
    blend = QueryBlend.of(query).plus(
        [OriginWeights(OVERRIDE_ORIGIN, override), OriginWeights(SYNONYM_ORIGIN, added)], max_pieces
    )
    return blend, matched.with_reports(skipped=skipped)


def _override_weights(weights: dict[int, float], span: CuratedSpan, table: QueryTable) -> None:
    if span.weight is None and span.factor == 1:
        return
    for i in table.word_ids(span.text):
        weights[i] = weights.get(i, 0.0) * span.factor if span.weight is None else span.weight


def _synonym_weights(
    query_weights: Mapping[int, float], spans: Sequence[CuratedSpan], table: QueryTable, max_pieces: int
) -> tuple[dict[int, float], list[RuleReport]]:
    added: dict[int, float] = {}
    skipped: list[RuleReport] = []
    for span in spans:
        for synonym in span.added:
            if not (factor := synonym.weight * span.factor):
                continue
            new = {
                i: weight * factor for i, weight in table.encode(synonym.text).by_id().items() if i not in query_weights
            }
            if len(query_weights) + len(added.keys() | new.keys()) > max_pieces:
                skipped.append(skipped_part("synonym", synonym.rule, synonym.text))
                continue
            for i, weight in new.items():
                added[i] = max(weight, added.get(i, 0.0))
    return added, skipped


def pinned_positions(positions: Sequence[int], ranked: int) -> list[int]:
    """Return the actual positions of pinned documents among `ranked` others, counted from 1 over the whole ranking.

    `positions` are the wanted ones in ascending order. Pins beyond the end of the ranking follow directly after it.
    """
    return [min(place, ranked + at) for at, place in enumerate(positions, 1)]


def insert_pinned(ranked: Sequence[_T], pinned: Mapping[int, _T], size: int) -> list[_T]:
    """Return a page of `size` results with each pinned one at its position (1 is the first of the page).

    If the ranking ends before a position, the pinned result follows directly after the ranking, if there is room.
    """
    others = iter(ranked)
    positions = sorted(pinned)
    page: list[_T] = []
    while len(page) < size:
        if positions and positions[0] == len(page) + 1:
            page.append(pinned[positions.pop(0)])
            continue
        result = next(others, None)
        if result is None:
            return page + [pinned[position] for position in positions][: size - len(page)]
        page.append(result)
    return page


class BoostFactor(NamedTuple):
    """Boost rule number `rule`, compiled for a generation: documents that match `clause` have their score times
    `factor`.

    `name` is for explanations, `fields` are the fields of the filter.
    """

    rule: int
    name: str
    factor: float
    clause: Clause
    fields: frozenset[str]

    @property
    def mark(self) -> str:
        """Return the name of the boost in a hit's `matched_queries`."""
        return f"{BOOST_ORIGIN} {self.rule}"


def compile_boosts(rules: Rules, fields: Mapping[str, FieldType], limits: FilterLimits) -> Iterator[BoostFactor | int]:
    """Yield the boosts compiled for this generation, or the number of a boost whose fields no longer exist."""
    for number, boost in enumerate(rules.boosts):
        try:
            tree = _parse_boost_filter(rules, number, fields, limits)
        except InvalidInput:
            yield number
        else:
            used = frozenset(condition.field for condition in iter_conditions(tree))
            yield BoostFactor(number, describe_filter(boost.filter), boost.factor, build_filter_clause(tree), used)


def apply_boosts(search: dict[str, Any], boosts: Sequence[BoostFactor], *, named: bool) -> dict[str, Any]:
    """Return a search body with multiplied scores, in the second phase too: (head + tail) x factor needs both.

    `named`: hits report which boosts they match.
    """
    if not boosts:
        return search
    boosted = search | {"query": _multiply_scores(search["query"], boosts, named=named)}
    if "rescore" in search:
        rescore = search["rescore"]["query"]
        query = _multiply_scores(rescore["rescore_query"], boosts, named=False)
        boosted["rescore"] = search["rescore"] | {"query": rescore | {"rescore_query": query}}
    return boosted


def _multiply_scores(query: Clause, boosts: Sequence[BoostFactor], *, named: bool) -> Clause:
    functions = [
        {
            "filter": {"bool": {"filter": [boost.clause], "_name": boost.mark}} if named else boost.clause,
            "weight": boost.factor,
        }
        for boost in boosts
    ]
    return {
        "function_score": {"query": query, "functions": functions, "score_mode": "multiply", "boost_mode": "multiply"}
    }


def boost_shares(score: float, boosts: Sequence[BoostFactor], matched: Collection[str]) -> Iterator[tuple[str, float]]:
    """Yield the name of each boost of a document and the amount that it adds to `score` (without boosts), in order."""
    for boost in boosts:
        if boost.mark in matched:
            yield boost.name, score * (boost.factor - 1)
            score *= boost.factor


def describe_filter(written: Any) -> str:
    """Return a filter in a few words, such as `kind is guide`; several conditions as JSON."""
    if isinstance(written, dict) and "field" in written:
        parts = (f"{name} {value if isinstance(value, str) else _json(value)}" for name, value in written.items())
        text = " ".join([str(written["field"]), *(part for part in parts if not part.startswith("field "))])
    else:
        text = _json(written)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else text[: _MAX_SHOWN_CHARACTERS - 1] + "…"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def check_rules(rules: Rules, generation: Generation, table: QueryTable, limits: FilterLimits) -> None:
    """Check rules against a generation before they are stored. `where` in the error names the first fault.

    Raises TooLarge (`curation_too_large`) and InvalidInput (`bad_curation`, and for boosts the errors of a filter).
    """
    check_boosts(rules, generation.spec.fields, limits)
    if rules.fields.title != 1 and not generation.titles:
        raise _bad_curation(
            "fields.title",
            "this generation of the index has no separate title words: `sparsewell reindex "
            f"{generation.index}` builds one that has",
        )
    size = _size(rules)
    if size > MAX_RULES_BYTES:
        raise TooLarge(
            "curation_too_large", f"The rules have {size:,} bytes of JSON; the limit is {MAX_RULES_BYTES:,}."
        )
    for i, synonym in enumerate(rules.synonyms):
        for text in (*synonym.words, *synonym.to):
            _check_piece_count(text, table, f"synonyms.{i}")
    for i, term in enumerate(rules.terms):
        _check_piece_count(term.term, table, f"terms.{i}")
        if term.weight is not None and not table.word_ids(term.term):
            raise _bad_curation(
                f"terms.{i}", f"this index's encoder has no piece for {term.term!r}, so it cannot have a weight"
            )


def check_boosts(rules: Rules, fields: Mapping[str, FieldType], limits: FilterLimits) -> None:
    """Check the filters of all boosts. Raises InvalidInput: the errors of `parse_filter`, `bad_curation` for too many
    conditions.
    """
    trees = [_parse_boost_filter(rules, number, fields, limits) for number in range(len(rules.boosts))]
    conditions = sum(1 for tree in trees for _ in iter_conditions(tree))
    if conditions > MAX_BOOST_CONDITIONS:
        raise InvalidInput(
            "bad_curation",
            f"boosts: all of them together may have {MAX_BOOST_CONDITIONS} conditions; these have {conditions:,}.",
            where="boosts",
        )


def _parse_boost_filter(rules: Rules, number: int, fields: Mapping[str, FieldType], limits: FilterLimits) -> Filter:
    return parse_filter(rules.boosts[number].filter, fields, limits, f"boosts.{number}.filter")


def _size(rules: Rules) -> int:
    try:
        return len(orjson.dumps(rules.stored()))
    except TypeError:  # only a filter can hold arbitrary numbers
        raise _bad_curation("boosts", "a filter has a number with too many digits to be stored") from None


def _check_piece_count(text: str, table: QueryTable, where: str) -> None:
    count = len(table.ids(text))
    if count > MAX_TEXT_PIECES:
        raise _bad_curation(
            where, f"{text[:80]!r} has {count} pieces for this index's encoder; the limit is {MAX_TEXT_PIECES}"
        )


def _bad_curation(where: str, what: str) -> InvalidInput:
    return InvalidInput("bad_curation", f"{where}: {what}.", where=where)
