"""The order of the documents that were found: by fields, the missing ones last, equal ones by score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from query_api.search.asked import Found
from services.errors import InvalidInput
from services.filters.reading import kind_of
from services.index_spec import FieldType
from services.opensearch.filter_clauses import path

SCORE: Final = "_score"
MAX_KEYS = 5
Order = Literal["asc", "desc"]


class SortKey(BaseModel):
    """What to sort by. Of several values the least counts in ascending order, the greatest in descending order."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(description="a declared keyword, number, date or boolean, or `_score`", examples=["year"])
    order: Order | None = Field(None, description="asc; of `_score` desc")


@dataclass(frozen=True, slots=True)
class By:
    """One checked key."""

    field: str
    descending: bool
    kind: FieldType | None  # None: the score


def sort_keys(keys: Sequence[SortKey], fields: Mapping[str, FieldType]) -> tuple[By, ...]:
    """The keys, held against the index. Raises InvalidInput (`bad_sort`, `undeclared_metadata`)."""
    if len(keys) > MAX_KEYS:
        raise InvalidInput("bad_sort", f"`sort` takes {MAX_KEYS} keys at most.")
    if len({key.field for key in keys}) < len(keys):
        raise InvalidInput("bad_sort", "`sort` names a field twice.")
    return tuple(_by(key, fields, f"sort[{n}]") for n, key in enumerate(keys))


def _by(key: SortKey, fields: Mapping[str, FieldType], where: str) -> By:
    if key.field == SCORE:
        return By(SCORE, key.order != "asc", None)
    kind = kind_of(key.field, fields, where)
    if kind == "text":
        raise InvalidInput(
            "bad_sort", f"{where}: `{key.field}` is declared as text, which has words and no order; declare a keyword."
        )
    return By(key.field, key.order == "desc", kind)


def engine_sort(keys: Sequence[By], ties: Sequence[str]) -> list[dict[str, Any]]:
    """As OpenSearch is asked; `ties` are fields that decide between equals, the greatest first."""
    named = {tie for tie in ties} - {key.field for key in keys}
    found = [_engine_key(key) for key in keys]
    # the order of equals is the same at every request: a sequence number is unique in a shard
    return [*found, *({tie: "desc"} for tie in ties if tie in named), {"_seq_no": "asc"}]


def _engine_key(key: By) -> dict[str, Any]:
    order = "desc" if key.descending else "asc"
    if key.kind is None:
        return {SCORE: order}
    return {path(key.field): {"order": order, "missing": "_last"}}


def ordered(found: Sequence[Found], keys: Sequence[By]) -> list[Found]:
    """Documents with their values, sorted as OpenSearch does; equal ones stay as they came."""
    in_order = list(found)
    for key in reversed(keys):
        if key.kind is None:
            in_order.sort(key=lambda one: one.score, reverse=key.descending)
            continue
        pick = max if key.descending else min
        values = {one.id: pick(listed) for one in in_order if (listed := one.values.get(key.field))}
        present = [one for one in in_order if one.id in values]
        present.sort(key=lambda one: values[one.id], reverse=key.descending)
        in_order = present + [one for one in in_order if one.id not in values]
    return in_order
