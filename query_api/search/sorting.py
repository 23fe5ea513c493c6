"""The order of hits by fields: documents without a value last, equal values by score.

`build_sort` gives the order to OpenSearch; `sort_documents` sorts candidates in the same order.
"""

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
# The order of documents without scores: the latest first.
LATEST_FIRST: Final[Mapping[str, Any]] = {"ingested_at": "desc"}
# A sequence number is unique in a shard, so equal hits have the same order in every request.
_TIE_BREAK: Final[Mapping[str, Any]] = {"_seq_no": "asc"}


@dataclass(frozen=True, slots=True)
class SortField:
    """A sort key that fits the index. `kind` is None for the score."""

    field: str
    kind: FieldType | None
    descending: bool


def parse_sort(keys: Sequence[SortKey], fields: Mapping[str, FieldType], *, scored: bool) -> tuple[SortField, ...]:
    """Validate sort keys against the declaration of the index. `scored`: whether documents have a score to sort by.

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
            raise InvalidInput("bad_sort", f"{where}: these documents have no score to sort by.", where=where)
        return SortField(SCORE, None, key.order != "asc")
    kind = declared_field_type(key.field, fields, where)
    if kind == "text":
        detail = f"{where}: `{key.field}` is declared as text, whose words have no order; declare a keyword."
        raise InvalidInput("bad_sort", detail, where=where)
    return SortField(key.field, kind, key.order == "desc")


def build_sort(keys: Sequence[SortField], *, scored: bool) -> list[Mapping[str, Any]]:
    """Build the `sort` member of a request to OpenSearch."""
    order = [_build_key(key) for key in keys]
    if not scored:
        order.append(LATEST_FIRST)
    elif all(key.kind is not None for key in keys):
        order.append({SCORE: "desc"})
    return [*order, _TIE_BREAK]


def _build_key(key: SortField) -> Mapping[str, Any]:
    order = "desc" if key.descending else "asc"
    return {SCORE: order} if key.kind is None else {field_path(key.field): {"order": order, "missing": "_last"}}


def sort_documents(
    ranking: Sequence[tuple[K, float]], keys: Sequence[SortField], values: Mapping[K, FieldValues]
) -> list[tuple[K, float]]:
    """Return documents and their scores in the order that OpenSearch would give; ties keep their order."""
    in_order = list(ranking)
    for key in reversed(keys):
        if key.kind is None:
            in_order.sort(key=lambda document: document[1], reverse=key.descending)
            continue
        pick = max if key.descending else min
        field_values = {name: pick(listed) for name, _ in in_order if (listed := values[name].get(key.field))}
        present = [document for document in in_order if document[0] in field_values]
        present.sort(key=lambda document: field_values[document[0]], reverse=key.descending)
        in_order = present + [document for document in in_order if document[0] not in field_values]
    return in_order
