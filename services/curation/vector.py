"""What rules make of a query's vector. Pure."""

from collections.abc import Mapping

from services.curation.matching import Matched, Span
from services.curation.words import key
from services.query_blend import Blend, Share
from services.query_table import QueryTable, QueryVector

SYNONYM, OVERRIDE = "synonym", "override"


def curated_blend(query: QueryVector, matched: Matched, table: QueryTable, most: int) -> Blend:
    """The vector with the weights that rules give and the pieces that synonyms add.

    A piece of the user's own keeps its weight when a synonym has it too; of two synonyms the heavier one counts. A text
    whose pieces would make the vector longer than `most` is left out, and `matched.skipped` says so.
    """
    if not matched.spans:
        return Blend.of(query)
    before = query.by_id()
    now = dict(before)
    # a term that is there twice is weighed once
    for span in {key(span.text): span for span in matched.spans}.values():
        _weigh(now, span, table)
    override = {i: weight - before.get(i, 0.0) for i, weight in now.items() if weight != before.get(i)}
    added = _added({i: weight for i, weight in now.items() if weight > 0}, matched, table, most)
    return Blend.of(query).plus([Share(OVERRIDE, override), Share(SYNONYM, added)], most)


def _weigh(weights: dict[int, float], span: Span, table: QueryTable) -> None:
    if span.weight is None and span.factor == 1:
        return
    for i in table.word_ids(span.text):
        weights[i] = weights.get(i, 0.0) * span.factor if span.weight is None else span.weight


def _added(own: Mapping[int, float], matched: Matched, table: QueryTable, most: int) -> dict[int, float]:
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
