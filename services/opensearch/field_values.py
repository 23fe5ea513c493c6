"""The values of metadata fields beside a hit, out of the columns that are sorted and counted by, without its source."""

from collections.abc import Mapping
from typing import Any

from services.index_spec import FieldType
from services.opensearch.filter_clauses import path

Values = Mapping[str, list[Any]]


def value_columns(kinds: Mapping[str, FieldType]) -> list[dict[str, str]]:
    """The `docvalue_fields` of a search."""
    return [
        {"field": path(field)} | ({"format": "epoch_millis"} if kind == "date" else {}) for field, kind in kinds.items()
    ]


def read_values(hit: Mapping[str, Any], kinds: Mapping[str, FieldType]) -> Values:
    """Values by field: strings, floats, booleans, and dates as milliseconds since 1970; none of a field without any."""
    listed = hit.get("fields", {})
    return {
        field: [int(value) for value in values] if kind == "date" else values
        for field, kind in kinds.items()
        if (values := listed.get(path(field)))
    }
