"""Filters that keys carry: those of searches, as far as a document alone decides them (docs/decisions/0201)."""

from collections.abc import Collection, Mapping
from typing import Any, Final

import orjson

from services.access.principal import Scope
from services.errors import InvalidInput
from services.filters.tree import STATE

_DEEPEST: Final = 8
_OPERATORS: Final = {"is", "any_of", "range", "prefix", "exists"}
_JOINED: Final = {"all", "any", "not"}


def checked_key_filter(value: Any, scopes: Collection[Scope]) -> None:
    """Holds a filter against its form; against the fields of an index it is held where it is used.

    Raises InvalidInput (`bad_key_filter`).
    """
    if set(scopes) != {"search"}:
        raise InvalidInput(
            "bad_key_filter",
            "A key with a filter has the scope `search` alone: it could write over documents that it may not see.",
        )
    _check(value, "filter", 1)
    try:
        orjson.dumps(value)
    except TypeError:
        raise _bad("filter", "it holds a number or a text that cannot be stored") from None


def _check(value: Any, where: str, depth: int) -> None:
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        raise _bad(where, f"a filter is an object, {_DEEPEST} levels deep at most")
    if "field" in value:
        operators = set(value) - {"field"}
        if not isinstance(value["field"], str) or len(operators) != 1:
            raise _bad(where, "a condition has a `field` and one operator")
        if value["field"] == STATE or operators == {"match"}:
            raise _bad(where, "a document alone must decide it, so `match` and `_state` are not for keys")
        if not operators <= _OPERATORS:
            raise _bad(where, f"there is no operator {operators.pop()[:40]!r}")
        return
    if len(value) != 1 or not set(value) <= _JOINED:
        raise _bad(where, "a filter has a `field` with one operator, or one of `all`, `any` and `not` alone")
    ((name, inner),) = value.items()
    parts = [inner] if name == "not" else inner
    if not isinstance(parts, list) or not parts:
        raise _bad(where, f"`{name}` has a list of one part at least")
    for n, one in enumerate(parts):
        _check(one, f"{where}.{name}[{n}]", depth + 1)


def _bad(where: str, what: str) -> InvalidInput:
    return InvalidInput("bad_key_filter", f"{where}: {what}.", where=where)
