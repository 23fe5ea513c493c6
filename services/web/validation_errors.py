"""Validation errors of requests in the terms of JSON.

pydantic describes a value by the types of Python, and lists the errors of every branch of a union with the branch's
type in the place. `describe_errors` removes these parts from the place, keeps the errors of the branch that was meant,
and words them for a reader of JSON (docs/decisions/0251).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

# The value has another JSON type than the branch.
_EXPECTED_TYPES: Final[Mapping[str, str]] = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a string",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "none_required": "null",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dict_type": "an object",
    "list_type": "an array",
    "tuple_type": "an array",
    "datetime_type": "a date with a time",
    "datetime_parsing": "a date with a time, such as 2026-01-31T12:00:00Z",
    "datetime_from_date_parsing": "a date with a time, such as 2026-01-31T12:00:00Z",
    "timezone_aware": "a date with a time and a time zone, such as 2026-01-31T12:00:00Z",
}
_TYPE_ERRORS: Final = frozenset(_EXPECTED_TYPES) - {"finite_number", "datetime_parsing", "timezone_aware"}
_MESSAGES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "missing": lambda _: "is missing",
    "extra_forbidden": lambda _: "is unknown",
    "literal_error": lambda context: f"must be {_quote(context['expected'])}",
    "enum": lambda context: f"must be {_quote(context['expected'])}",
    "greater_than": lambda context: f"must be greater than {context['gt']}",
    "greater_than_equal": lambda context: f"must be at least {context['ge']}",
    "less_than": lambda context: f"must be less than {context['lt']}",
    "less_than_equal": lambda context: f"must be at most {context['le']}",
    "string_too_short": lambda context: f"must have at least {_count(context['min_length'], 'character')}",
    "string_too_long": lambda context: f"must have at most {_count(context['max_length'], 'character')}",
    "too_short": lambda context: f"must have at least {_count(context['min_length'], 'item')}",
    "too_long": lambda context: f"must have at most {_count(context['max_length'], 'item')}",
    "string_pattern_mismatch": lambda context: f"must match the pattern {context['pattern']}",
    "string_unicode": lambda _: "has half of a surrogate pair, which is not a character",
}
# A part of a place that names a type of Python: `literal['a']`, `function-after[...]`, `str`, `FusionMethod`, `[key]`.
_TYPE_PART: Final = re.compile(r"str|int|float|bool|none|nullable|dict|list|tuple|[A-Z][a-z]\w*")
_UNKNOWN: Final = object()

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class _PlacedError:
    """An error with its place in the request. `branch` names the union around it and the branch of that union.

    `expected` names the JSON type that the value does not have; None: it has the type, and another fault.
    """

    where: Location
    message: str
    branch: tuple[Location, str] | None = None
    expected: str | None = None


def describe_errors(errors: Sequence[Mapping[str, Any]], request: Any = _UNKNOWN) -> list[dict[str, str]]:
    """Return `where` and `message` of each error. `request` is the validated value, if it is known."""
    placed = [_place(error, request) for error in errors]
    described = []
    for error in _choose_branches(placed):
        entry = {"where": ".".join(map(str, error.where)), "message": error.message}
        if entry not in described:
            described.append(entry)
    return described


def _place(error: Mapping[str, Any], request: Any) -> _PlacedError:
    where: list[str | int] = []
    branch = None
    value = request
    parts = error["loc"]
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        if _is_member(value, part, missing=is_last and error["type"] == "missing"):
            where.append(part)
            value = _UNKNOWN if value is _UNKNOWN else _member(value, part)
        elif branch is None and part != "[key]":
            branch = (tuple(where), str(part))
    return _PlacedError(tuple(where), _word(error), branch, _expected_type(error))


def _expected_type(error: Mapping[str, Any]) -> str | None:
    kind = error["type"]
    if kind in ("literal_error", "enum") and not isinstance(error["input"], str):
        return _quote(error["ctx"]["expected"])
    return _EXPECTED_TYPES[kind] if kind in _TYPE_ERRORS else None


def _is_member(value: Any, part: str | int, *, missing: bool) -> bool:
    if value is _UNKNOWN:
        return isinstance(part, int) or not ("[" in part or "(" in part or _TYPE_PART.fullmatch(part))
    if isinstance(value, dict):
        return part in value or missing
    return isinstance(value, list) and isinstance(part, int) and part < len(value)


def _member(value: Any, part: Any) -> Any:
    return value.get(part) if isinstance(value, dict) else value[part]


def _choose_branches(errors: Sequence[_PlacedError]) -> list[_PlacedError]:
    """Keep the errors of the branch of each union that the value was meant for."""
    unions: dict[Location, dict[str, list[_PlacedError]]] = {}
    for error in errors:
        if error.branch is not None:
            place, name = error.branch
            unions.setdefault(place, {}).setdefault(name, []).append(error)
    chosen: list[_PlacedError] = []
    for error in errors:
        if error.branch is None:
            chosen.append(error)
        elif (branches := unions.pop(error.branch[0], None)) is not None:
            chosen += _choose_branch(error.branch[0], branches)
    return chosen


def _choose_branch(place: Location, branches: Mapping[str, list[_PlacedError]]) -> list[_PlacedError]:
    """Return the errors of the branch whose JSON type the value has; if it has none of them, an error that lists all.

    The branch with the fewest errors is taken if there are several.
    """
    fitting = [
        errors for errors in branches.values() if not any(error.where == place and error.expected for error in errors)
    ]
    if fitting:
        return min(fitting, key=len)
    expected = [error.expected for errors in branches.values() for error in errors if error.expected]
    return [_PlacedError(place, f"must be {_join_alternatives(list(dict.fromkeys(expected)))}")]


def _word(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _EXPECTED_TYPES:
        return f"must be {_EXPECTED_TYPES[kind]}"
    if kind in _MESSAGES:
        return _MESSAGES[kind](context)
    message: str = error["msg"]
    return message.removeprefix("Value error, ").replace("Input should be", "must be")


def _join_alternatives(names: Sequence[str]) -> str:
    return " or ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])}, or {names[-1]}"


def _quote(expected: str) -> str:
    return expected.replace("'", '"')


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
