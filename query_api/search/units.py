"""Hits that are parts of documents: chapters of talk, or passages, several of one document among them.

A list is a search for documents by their best part, with the best parts of each. Lists are fused as those of documents
are; then the documents of the parts that are shown are read, and their keyword scores explained if somebody asks why.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from query_api.search.asked import Asked, Found
from query_api.search.bodies import boosted, depth_of, left_out, modes_of, needed_source, words_in
from query_api.search.lists import answers_of
from query_api.search.own_terms import read_own_terms
from query_api.search.places import is_there
from query_api.search.reading import shares_of, with_sources
from query_api.search.request import MAX_PER_DOCUMENT
from services.fusion import fuse, parts
from services.opensearch.part_queries import Part, by_best_part, read_parts, sparse_parts, words_field
from services.opensearch.queries import Plan, body, filtered

Key = tuple[str, int]


async def found_parts(asked: Asked, unit: Part) -> list[Found]:
    """The chapters or passages that are shown, with all that is shown of them."""
    if asked.curated is not None:
        await read_own_terms(asked, asked.curated)
        asked.curated.unplace("by_unit")
    found = await _ranked(asked, unit)
    await with_sources(asked, found, needed_source(asked.request))
    for one in found:
        if one.source is not None and not is_there(unit, one.part or 0, one.source):
            one.source = None
    if asked.request.asks_why and any("lexical" in one.scores for one in found):
        await _explain(asked, unit, found)
    return found


async def _ranked(asked: Asked, unit: Part) -> list[Found]:
    request, part, modes = asked.request, asked.part, modes_of(asked)
    # one more than is shown tells whether anything follows
    depth = depth_of(asked) if len(modes) > 1 else request.size + (0 if part is None else part.begin + 1)
    answers = await answers_of(asked, [_plan(asked, mode, unit, depth) for mode in modes])
    hits = {mode: answer["hits"]["hits"] for mode, answer in zip(modes, answers, strict=True)}
    asked.unmatched = hits.get("lexical") == []
    lists = {mode: _scores(asked, unit, of_mode, depth) for mode, of_mode in hits.items()}
    if len(modes) > 1:
        ranking = _at_most(request.per_document, fuse(lists, request.weights.model_dump(), request.chosen_fusion()))
    else:
        ranking = list(lists[modes[0]].items())
    if part is not None:
        full = len(modes) > 1 and any(len(scores) == depth for scores in lists.values())
        ranking = list(part.of_fused(ranking, request.size, full=full))
    ranking = ranking[: request.size]
    why: Mapping[Key, Mapping[str, tuple[float, float]]] = {}
    if request.explain and len(modes) > 1:
        why = parts(lists, request.weights.model_dump(), request.chosen_fusion(), [key for key, _ in ranking])
    marks = {hit["_id"]: hit.get("matched_queries", ()) for of_mode in hits.values() for hit in of_mode}
    asked.watch.lap("fuse")
    return [
        Found(
            key[0],
            score,
            {mode: scores[key] for mode, scores in lists.items() if key in scores},
            fusion=why.get(key),
            part=key[1],
            boosts=marks[key[0]],
        )
        for key, score in ranking
    ]


def _plan(asked: Asked, mode: str, unit: Part, depth: int) -> Plan:
    most = min(asked.request.per_document or MAX_PER_DOCUMENT, depth)
    query = filtered(by_best_part(_words(asked, mode, unit), unit, most), asked.selection.clauses, left_out(asked))
    # (the factor of a document is that of each of its parts: its marks are asked for, whoever asks why)
    return Plan(asked.target, boosted(asked, body(query, depth, False, asked.timeout), named=True))


def _words(asked: Asked, mode: str, unit: Part) -> dict[str, Any]:
    return sparse_parts(asked.query, unit) if mode == "sparse" else words_in(asked, words_field(unit))


def _scores(asked: Asked, unit: Part, hits: Sequence[Mapping[str, Any]], depth: int) -> dict[Key, float]:
    """The best `depth` parts of all, best first, equal ones by document and place."""
    scores = {}
    for hit in hits:
        factor = 1.0 if asked.curated is None else asked.curated.factor(hit.get("matched_queries", ()))
        for number, one in read_parts(hit, unit):
            scores[hit["_id"], number] = float(one["_score"]) * factor
    return dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:depth])


def _at_most(number: int | None, ranking: Sequence[tuple[Key, float]]) -> list[tuple[Key, float]]:
    """So many parts of each document: two lists may have different ones of the same."""
    if number is None:
        return list(ranking)
    shown: Counter[str] = Counter()
    kept = []
    for key, score in ranking:
        shown[key[0]] += 1
        if shown[key[0]] <= number:
            kept.append((key, score))
    return kept


async def _explain(asked: Asked, unit: Part, found: Sequence[Found]) -> None:
    """What each word added to the keyword scores of parts."""
    named = {one.id: 0 for one in found if "lexical" in one.scores}
    most = min(asked.request.per_document or MAX_PER_DOCUMENT, depth_of(asked) + 1)
    words = by_best_part(_words(asked, "lexical", unit), unit, most, explained=True)
    query = {"bool": {"must": [words], "filter": [{"ids": {"values": list(named)}}]}}
    (answer,) = await answers_of(asked, [Plan(asked.target, body(query, len(named), False, asked.timeout))])
    explained = {(hit["_id"], number): part for hit in answer["hits"]["hits"] for number, part in read_parts(hit, unit)}
    for one in found:
        part = explained.get((one.id, one.part or 0))
        if part is not None and "lexical" in one.scores:
            rules, score = asked.curated, one.scores["lexical"]
            one.shares = shares_of(part, score if rules is None else rules.unboosted(score, one.boosts))
