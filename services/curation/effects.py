"""Documents whose score is multiplied because of what their metadata says, the same in every list. Pure.

What rules make of the keyword query: the same words where no rule holds, alternatives where one does.

Pinned documents among ranked ones. Pure.

What rules make of a query's vector. Pure.

Rules held against the index that they are for, before they are stored.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import orjson

from services.curation.matching import CuratedSpan, MatchedRules
from services.curation.rules import MAX_RULES_BYTES, Rules, phrase_key
from services.encoders.query_table import QueryTable, QueryVector
from services.errors import InvalidInput, TooLarge
from services.filters.parsing import FilterLimits, parse_filter
from services.filters.tree import Filter, iter_conditions
from services.index_spec import FieldType, Generation
from services.opensearch.queries import Clause, KeywordField, build_filter_clause, lexical_query
from services.query.expansion import OriginWeights, QueryBlend


def curated_lexical_query(
    text: str,
    spans: Sequence[CuratedSpan],
    also: Mapping[str, float],
    title: float = 1.0,
    field: KeywordField = "lexical",
) -> dict[str, Any]:
    """The query of a text, cut where the spans are, and of words beside it (`also`: as in `lexical_query`).

    BM25 sums over words, so the parts together score what the whole would. Words and what stands for them are
    alternatives, of which a document counts the best (Lucene's DisjunctionMaxQuery): one that has them all is not about
    it twice. What is added is a phrase if it has several words: "infarction" alone is no synonym of "heart attack".

    `title`: how often the words of titles count. They are counted once with the text; what is above 1 is a factor of
    BM25 over titles alone, which finds no document that the text's words do not find. Of another `field` than the
    documents' own, titles do not count.
    """
    words = _field_query(field, text, spans, also)
    if title == 1 or field != "lexical":
        return words
    of_titles = {"bool": {"should": [_field_query("title_words", text, spans, also)], "boost": title - 1}}
    return {"bool": {"should": [words, of_titles]}}


def _field_query(
    field: KeywordField, text: str, spans: Sequence[CuratedSpan], also: Mapping[str, float]
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


def _alternatives(field: KeywordField, span: CuratedSpan) -> dict[str, Any]:
    own = _phrase_query(field, span.text, span.factor) if span.phrase else _match_query(field, span.text, span.factor)
    if not span.added:
        return own
    added = [_phrase_query(field, one.text, one.weight * span.factor) for one in span.added]
    return {"dis_max": {"queries": [own, *added]}}


def _match_query(field: KeywordField, text: str, boost: float) -> dict[str, Any]:
    return {"match": {field: {"query": text} | _boost_option(boost)}}


def _phrase_query(field: KeywordField, text: str, boost: float) -> dict[str, Any]:
    return {"match_phrase": {field: {"query": text} | _boost_option(boost)}}


def _boost_option(boost: float) -> dict[str, float]:
    return {} if boost == 1 else {"boost": boost}


_T = TypeVar("_T")


def pinned_positions(wanted: Sequence[int], ranked: int) -> list[int]:
    """Where pinned documents stand among so many ranked ones, both counted from 1 over the whole ranking.

    `wanted` are their places in ascending order; those behind the end of the ranked ones follow right after them.
    """
    return [min(place, ranked + at) for at, place in enumerate(wanted, 1)]


def insert_pinned(ranked: Sequence[_T], pinned: Mapping[int, _T], size: int) -> list[_T]:
    """A page of `size` in which each pinned one stands at its place (1 is the first of the page).

    Where the ranked ones end before a place, the pinned one comes right after them, if there is room.
    """
    others = iter(ranked)
    places = sorted(pinned)
    found: list[_T] = []
    while len(found) < size:
        if places and places[0] == len(found) + 1:
            found.append(pinned[places.pop(0)])
            continue
        one = next(others, None)
        if one is None:
            return found + [pinned[place] for place in places][: size - len(found)]
        found.append(one)
    return found


SYNONYM_ORIGIN, OVERRIDE_ORIGIN = "synonym", "override"


def curate_query_vector(query: QueryVector, matched: MatchedRules, table: QueryTable, most: int) -> QueryBlend:
    """The vector with the weights that rules give and the pieces that synonyms add.

    A piece of the user's own keeps its weight when a synonym has it too; of two synonyms the heavier one counts. A text
    whose pieces would make the vector longer than `most` is left out, and `matched.skipped` says so.
    """
    if not matched.spans:
        return QueryBlend.of(query)
    before = query.by_id()
    now = dict(before)
    # a term that is there twice is weighed once
    for span in {phrase_key(span.text): span for span in matched.spans}.values():
        _override_weights(now, span, table)
    override = {i: weight - before.get(i, 0.0) for i, weight in now.items() if weight != before.get(i)}
    added = _synonym_weights({i: weight for i, weight in now.items() if weight > 0}, matched, table, most)
    return QueryBlend.of(query).plus(
        [OriginWeights(OVERRIDE_ORIGIN, override), OriginWeights(SYNONYM_ORIGIN, added)], most
    )


def _override_weights(weights: dict[int, float], span: CuratedSpan, table: QueryTable) -> None:
    if span.weight is None and span.factor == 1:
        return
    for i in table.word_ids(span.text):
        weights[i] = weights.get(i, 0.0) * span.factor if span.weight is None else span.weight


def _synonym_weights(own: Mapping[int, float], matched: MatchedRules, table: QueryTable, most: int) -> dict[int, float]:
    added: dict[int, float] = {}
    for span in matched.spans:
        for one in span.added:
            if not (factor := one.weight * span.factor):
                continue
            new = {i: weight * factor for i, weight in table.encode(one.text).by_id().items() if i not in own}
            if len(own) + len(added.keys() | new.keys()) > most:
                matched.skip("synonym", one.rule, one.text)
                continue
            for i, weight in new.items():
                added[i] = max(weight, added.get(i, 0.0))
    return added


# Of all boosts of an index: every search asks them of every document that it scores.
MAX_BOOST_CONDITIONS = 100
BOOST_ORIGIN = "boost"
_MAX_SHOWN_CHARACTERS = 80


class BoostFactor(NamedTuple):
    """Rule `rule` of the boosts, fitted to a generation: documents that match `clause` have `factor` times their score.

    `name` is for explanations, `fields` are those that it asks about.
    """

    rule: int
    name: str
    factor: float
    clause: Clause
    fields: frozenset[str]

    @property
    def mark(self) -> str:
        """What OpenSearch calls it in a hit's `matched_queries`."""
        return f"{BOOST_ORIGIN} {self.rule}"


def check_boosts(rules: Rules, fields: Mapping[str, FieldType], limits: FilterLimits) -> None:
    """Raises InvalidInput: what `parse_filter` raises, `bad_curation` for too many conditions in all."""
    trees = [_parse_boost_filter(rules, number, fields, limits) for number in range(len(rules.boosts))]
    found = sum(1 for tree in trees for _ in iter_conditions(tree))
    if found > MAX_BOOST_CONDITIONS:
        raise InvalidInput(
            "bad_curation",
            f"boosts: all of them together may have {MAX_BOOST_CONDITIONS} conditions; these have {found:,}.",
            where="boosts",
        )


def compile_boosts(rules: Rules, fields: Mapping[str, FieldType], limits: FilterLimits) -> Iterator[BoostFactor | int]:
    """The boosts as this generation can have them; of one that it cannot, as a field is gone, its number."""
    for number, boost in enumerate(rules.boosts):
        try:
            tree = _parse_boost_filter(rules, number, fields, limits)
        except InvalidInput:
            yield number
        else:
            fields_of = frozenset(one.field for one in iter_conditions(tree))
            yield BoostFactor(number, describe_filter(boost.filter), boost.factor, build_filter_clause(tree), fields_of)


def apply_boosts(search: dict[str, Any], boosts: Sequence[BoostFactor], *, named: bool) -> dict[str, Any]:
    """A search body whose scores are multiplied, those of a second phase too: (head + tail) x factor is what both give.

    `named`: hits say which boosts they have.
    """
    if not boosts:
        return search
    found = search | {"query": _multiply_scores(search["query"], boosts, named=named)}
    if "rescore" in search:
        again = search["rescore"]["query"]
        query = _multiply_scores(again["rescore_query"], boosts, named=False)
        found["rescore"] = search["rescore"] | {"query": again | {"rescore_query": query}}
    return found


def boost_shares(score: float, boosts: Sequence[BoostFactor], matched: Collection[str]) -> Iterator[tuple[str, float]]:
    """By name, what each boost of a document added to its score without them: what a factor adds to all before it."""
    for one in boosts:
        if one.mark in matched:
            yield one.name, score * (one.factor - 1)
            score *= one.factor


def describe_filter(written: Any) -> str:
    """A filter in few words: `kind is guide`; of several conditions their JSON."""
    if isinstance(written, dict) and "field" in written:
        said = (f"{name} {value if isinstance(value, str) else _json(value)}" for name, value in written.items())
        text = " ".join([str(written["field"]), *(one for one in said if not one.startswith("field "))])
    else:
        text = _json(written)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else text[: _MAX_SHOWN_CHARACTERS - 1] + "…"


def _parse_boost_filter(rules: Rules, number: int, fields: Mapping[str, FieldType], limits: FilterLimits) -> Filter:
    return parse_filter(rules.boosts[number].filter, fields, limits, f"boosts.{number}.filter")


def _multiply_scores(query: Clause, boosts: Sequence[BoostFactor], *, named: bool) -> Clause:
    functions = [
        {"filter": {"bool": {"filter": [one.clause], "_name": one.mark}} if named else one.clause, "weight": one.factor}
        for one in boosts
    ]
    return {
        "function_score": {"query": query, "functions": functions, "score_mode": "multiply", "boost_mode": "multiply"}
    }


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


# Of one text that is added to a query. Eight words have far fewer; what has more is no words to this encoder.
MAX_TEXT_PIECES = 64


def check_rules(rules: Rules, generation: Generation, table: QueryTable, limits: FilterLimits) -> None:
    """Raises TooLarge (`curation_too_large`) and InvalidInput (`bad_curation`, and of boosts what a filter raises) with
    `where` the first fault is.
    """
    check_boosts(rules, generation.spec.fields, limits)
    if rules.fields.title != 1 and not generation.titles:
        raise _bad_curation(
            "fields.title",
            "this generation of the index was made before titles had words of their own: `sparsewell reindex "
            f"{generation.index}` builds one that has",
        )
    size = _size(rules)
    if size > MAX_RULES_BYTES:
        raise TooLarge("curation_too_large", f"Rules may have {MAX_RULES_BYTES:,} bytes of JSON; these have {size:,}.")
    for i, synonym in enumerate(rules.synonyms):
        for text in (*synonym.words, *synonym.to):
            _check_piece_count(text, table, f"synonyms.{i}")
    for i, term in enumerate(rules.terms):
        _check_piece_count(term.term, table, f"terms.{i}")
        if term.weight is not None and not table.word_ids(term.term):
            raise _bad_curation(
                f"terms.{i}", f"this index's encoder has no piece for {term.term!r}: there is nothing to weigh"
            )


def _size(rules: Rules) -> int:
    try:
        return len(orjson.dumps(rules.stored()))
    except TypeError:  # of a filter, the one part that may hold any number
        raise _bad_curation("boosts", "a filter has a number of more digits than can be stored") from None


def _check_piece_count(text: str, table: QueryTable, where: str) -> None:
    found = len(table.ids(text))
    if found > MAX_TEXT_PIECES:
        raise _bad_curation(
            where, f"{text[:80]!r} has {found} pieces for this index's encoder, and {MAX_TEXT_PIECES} may be added"
        )


def _bad_curation(where: str, what: str) -> InvalidInput:
    return InvalidInput("bad_curation", f"{where}: {what}.", where=where)
