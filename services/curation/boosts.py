"""Documents whose score is multiplied because of what their metadata says, the same in every list. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from services.curation.rules import Rules
from services.errors import InvalidInput
from services.filters.reading import FilterLimits, read_filter
from services.filters.tree import Filter, conditions
from services.index_spec import FieldType
from services.opensearch.filter_clauses import Clause, clause

# Of all boosts of an index: every search asks them of every document that it scores.
MAX_CONDITIONS = 100
BOOST = "boost"
_SHOWN = 80


class Factor(NamedTuple):
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
        return f"{BOOST} {self.rule}"


def checked_boosts(rules: Rules, fields: Mapping[str, FieldType], limits: FilterLimits) -> None:
    """Raises InvalidInput: what `read_filter` raises, `bad_curation` for too many conditions in all."""
    trees = [_read(rules, number, fields, limits) for number in range(len(rules.boosts))]
    found = sum(1 for tree in trees for _ in conditions(tree))
    if found > MAX_CONDITIONS:
        raise InvalidInput(
            "bad_curation",
            f"boosts: all of them together may have {MAX_CONDITIONS} conditions; these have {found:,}.",
            where="boosts",
        )


def factors(rules: Rules, fields: Mapping[str, FieldType], limits: FilterLimits) -> Iterator[Factor | int]:
    """The boosts as this generation can have them; of one that it cannot, as a field is gone, its number."""
    for number, boost in enumerate(rules.boosts):
        try:
            tree = _read(rules, number, fields, limits)
        except InvalidInput:
            yield number
        else:
            fields_of = frozenset(one.field for one in conditions(tree))
            yield Factor(number, filter_name(boost.filter), boost.factor, clause(tree), fields_of)


def boosted(search: dict[str, Any], boosts: Sequence[Factor], *, named: bool) -> dict[str, Any]:
    """A search body whose scores are multiplied, those of a second phase too: (head + tail) x factor is what both give.

    `named`: hits say which boosts they have.
    """
    if not boosts:
        return search
    found = search | {"query": _multiplied(search["query"], boosts, named=named)}
    if "rescore" in search:
        again = search["rescore"]["query"]
        query = _multiplied(again["rescore_query"], boosts, named=False)
        found["rescore"] = search["rescore"] | {"query": again | {"rescore_query": query}}
    return found


def boost_shares(score: float, boosts: Sequence[Factor], matched: Collection[str]) -> Iterator[tuple[str, float]]:
    """By name, what each boost of a document added to its score without them: what a factor adds to all before it."""
    for one in boosts:
        if one.mark in matched:
            yield one.name, score * (one.factor - 1)
            score *= one.factor


def filter_name(written: Any) -> str:
    """A filter in few words: `kind is guide`; of several conditions their JSON."""
    if isinstance(written, dict) and "field" in written:
        said = (f"{name} {value if isinstance(value, str) else _json(value)}" for name, value in written.items())
        text = " ".join([str(written["field"]), *(one for one in said if not one.startswith("field "))])
    else:
        text = _json(written)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _read(rules: Rules, number: int, fields: Mapping[str, FieldType], limits: FilterLimits) -> Filter:
    return read_filter(rules.boosts[number].filter, fields, limits, f"boosts.{number}.filter")


def _multiplied(query: Clause, boosts: Sequence[Factor], *, named: bool) -> Clause:
    functions = [
        {"filter": {"bool": {"filter": [one.clause], "_name": one.mark}} if named else one.clause, "weight": one.factor}
        for one in boosts
    ]
    return {
        "function_score": {"query": query, "functions": functions, "score_mode": "multiply", "boost_mode": "multiply"}
    }


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
