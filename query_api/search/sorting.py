"""The order of what was found: by fields, documents without a value last, equal ones by score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from query_api.schemas.search_request import SortKey
from services.errors import InvalidInput
from services.filters.parsing import declared_field_type
from services.index_spec import FieldType
from services.opensearch.queries import FieldValues, field_path
from services.query.fusion import K

SCORE: Final = "_score"
MAX_KEYS = 5
# In which documents are shown that nothing was asked about: the latest first.
LATEST_FIRST: Final[Mapping[str, Any]] = {"ingested_at": "desc"}
# The order of equals is the same at every request: a sequence number is unique in a shard.
_TIE_BREAK: Final[Mapping[str, Any]] = {"_seq_no": "asc"}


@dataclass(frozen=True, slots=True)
class SortField:
    """A key that fits the index; `kind` is None for the score."""

    field: str
    kind: FieldType | None
    descending: bool


def parse_sort(keys: Sequence[SortKey], fields: Mapping[str, FieldType], *, scored: bool) -> tuple[SortField, ...]:
    """The keys, held against the index; `scored`: whether documents have a score to be sorted by.

    Raises InvalidInput (`bad_sort`, `undeclared_metadata`).
    """
    if len(keys) > MAX_KEYS:
        raise InvalidInput("bad_sort", f"`sort` takes {MAX_KEYS} keys at most.")
    if len({key.field for key in keys}) < len(keys):
        raise InvalidInput("bad_sort", "`sort` names a field twice.")
    return tuple(_parse_key(key, fields, f"sort[{n}]", scored) for n, key in enumerate(keys))


def _parse_key(key: SortKey, fields: Mapping[str, FieldType], where: str, scored: bool) -> SortField:
    if key.field == SCORE:
        if not scored:
            raise InvalidInput("bad_sort", f"{where}: these documents have no score to be sorted by.", where=where)
        return SortField(SCORE, None, key.order != "asc")
    kind = declared_field_type(key.field, fields, where)
    if kind == "text":
        what = f"{where}: `{key.field}` is declared as text, whose words have no order; declare a keyword."
        raise InvalidInput("bad_sort", what, where=where)
    return SortField(key.field, kind, key.order == "desc")


def build_sort(keys: Sequence[SortField], *, scored: bool) -> list[Mapping[str, Any]]:
    """The order as OpenSearch is asked for it."""
    found = [_build_key(key) for key in keys]
    if not scored:
        found.append(LATEST_FIRST)
    elif all(key.kind is not None for key in keys):
        found.append({SCORE: "desc"})
    return [*found, _TIE_BREAK]


def _build_key(key: SortField) -> Mapping[str, Any]:
    order = "desc" if key.descending else "asc"
    return {SCORE: order} if key.kind is None else {field_path(key.field): {"order": order, "missing": "_last"}}


def sort_documents(
    found: Sequence[tuple[K, float]], keys: Sequence[SortField], values: Mapping[K, FieldValues]
) -> list[tuple[K, float]]:
    """Documents and their scores in that order, as OpenSearch would sort them; equal ones stay as they came."""
    in_order = list(found)
    for key in reversed(keys):
        if key.kind is None:
            in_order.sort(key=lambda one: one[1], reverse=key.descending)
            continue
        pick = max if key.descending else min
        has = {name: pick(listed) for name, _ in in_order if (listed := values[name].get(key.field))}
        present = [one for one in in_order if one[0] in has]
        present.sort(key=lambda one: has[one[0]], reverse=key.descending)
        in_order = present + [one for one in in_order if one[0] not in has]
    return in_order
