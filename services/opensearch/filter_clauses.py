"""A filter as clauses of OpenSearch's `bool.filter`: not scored, cached, and the same for every list of a search."""

from typing import Any, Final

import numpy as np

from services.filters.tree import (
    ID,
    STATE,
    All,
    AnyOf,
    Exists,
    Filter,
    Not,
    OneOf,
    StartsWith,
    Within,
    Words,
)
from services.opensearch.journal import DELETED

Clause = dict[str, Any]
_MOMENTS: Final = "epoch_millis||strict_date_optional_time"

# A tombstone satisfies whatever a document without any metadata does. Searches by words never meet one; what asks for
# no words must leave them out.
ALIVE: Final[Clause] = {"bool": {"must_not": [{"term": {"state": DELETED}}]}}


def filter_clauses(tree: Filter | None) -> list[Clause]:
    """The clauses that must all hold; none for no filter."""
    if tree is None:
        return []
    return [clause(part) for part in (tree.parts if isinstance(tree, All) else (tree,))]


def clause(tree: Filter) -> Clause:
    """One query that matches exactly the documents that satisfy the filter, and tombstones as if they had no fields."""
    match tree:
        case All(parts):
            return {"bool": {"filter": [clause(part) for part in parts]}}
        case AnyOf(parts):
            return {"bool": {"should": [clause(part) for part in parts], "minimum_should_match": 1}}
        case Not(part):
            return {"bool": {"must_not": [clause(part)]}}
        case OneOf(field, values):
            named = [zero for value in values for zero in _zeros(value)]
            return {"terms": {path(field): named}} if len(named) > 1 else {"term": {path(field): named[0]}}
        case Within(field, low, high, date):
            bounds = {name: bound for name, bound in (("gte", low), ("lte", high)) if bound is not None}
            if not date:
                return {"range": {path(field): bounds}}
            moments = {name: _moment(int(bound)) for name, bound in bounds.items()}
            return {"range": {path(field): moments | {"format": _MOMENTS}}}
        case Exists(field):
            return {"exists": {"field": path(field)}}
        case StartsWith(field, prefix):
            return {"prefix": {path(field): prefix}}
        case Words(field, text):
            return {"match": {path(field): {"query": text, "operator": "and"}}}


def path(field: str) -> str:
    """Where OpenSearch keeps a field of a filter."""
    return {ID: "_id", STATE: "state"}.get(field, f"metadata.{field}")


def _moment(milliseconds: int) -> str | int:
    """Before 1970 as a date: OpenSearch 3.6 reads -3470 as an upper bound as if it were -3471."""
    return milliseconds if milliseconds >= 0 else f"{np.datetime64(milliseconds, 'ms')}Z"


def _zeros(value: str | float | bool) -> tuple[str | float | bool, ...]:
    """The two zeros of floating point are equal to everybody but OpenSearch."""
    return (0.0, -0.0) if isinstance(value, float) and value == 0 else (value,)
