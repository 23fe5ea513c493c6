"""All that matches in several indexes, sorted, where they are searched apart: by the values, as one index sorts."""

from collections.abc import Sequence
from typing import Any

from query_api.search.across_lists import alike, counting_matches, keep_counts, query_weight
from query_api.search.asked import Asked, Found
from query_api.search.bodies import depth_of, plan, sorted_body
from query_api.search.engine import Key
from query_api.search.lists import Ranked, answers_of, shown
from query_api.search.selection import is_scored
from query_api.search.sorting import ordered
from services.opensearch.field_values import read_values, value_columns


async def sorted_together(each: Sequence[Asked]) -> list[Found]:
    """The first of each search in its order, merged; as many as candidates would be."""
    asked = each[0]
    depth, scored = depth_of(asked), is_scored(asked.request)
    columns = {by.field: by.kind for by in asked.selection.sort if by.kind is not None}
    if asked.part is not None:
        asked.part.by_place = False
    some = alike(each, asked.mode, depth)
    several = asked.mode == "sparse" and len({one.generation.encoder.fingerprint for one in some}) > 1
    plans = []
    for one in some:
        search = sorted_body(one, one.mode, depth, False) | {"docvalue_fields": value_columns(columns)}
        plans.append(plan(one, one.mode, search))
    answers = await answers_of(asked, [*plans, *counting_matches(each)])
    keep_counts(asked, answers[len(plans) :])
    lists = [answer["hits"]["hits"] for answer in answers[: len(plans)]]
    found: dict[Key, dict[str, Any]] = {(hit["_index"], hit["_id"]): hit for hits in lists for hit in hits}
    asked.unmatched = asked.mode == "lexical" and not found
    scores = {key: float(hit["_score"]) for key, hit in found.items()} if scored else {}
    weights = {
        (hit["_index"], hit["_id"]): query_weight(one) if several else 1.0
        for one, hits in zip(some, lists, strict=True)
        for hit in hits
    }
    scaled = {key: score / weights[key] for key, score in scores.items()}

    def tie(key: Key) -> tuple[float, int, Key]:
        """As the engine orders equals: by score, or the latest first; then by the order in which they were written."""
        *_, last, number = found[key]["sort"]
        return -scaled[key] if scored else -last, number, key

    ranked = [(key, scaled.get(key, 0.0)) for key in sorted(found, key=tie)]
    values = {key: read_values(hit, columns) for key, hit in found.items()}
    boosts = {key: hit["matched_queries"] for key, hit in found.items() if "matched_queries" in hit}
    by_mode = {asked.mode: scores} if scored else {}
    full = any(len(hits) == depth for hits in lists)
    return shown(asked, ordered(ranked, asked.selection.sort, values), Ranked(by_mode, by_mode, full, boosts))
