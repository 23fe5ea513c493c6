"""Whether one document satisfies a filter, told from the document alone: as OpenSearch finds it, without asking."""

from collections.abc import Mapping
from typing import Any

from services.filters.tree import ID, All, AnyOf, Exists, Filter, Not, OneOf, StartsWith, Within
from services.moments import span


def satisfies(tree: Filter, document_id: str, metadata: Mapping[str, Any]) -> bool:
    """Raises TypeError for what a document alone does not decide: words, which an analyser cuts, and states."""
    match tree:
        case All(parts):
            return all(satisfies(part, document_id, metadata) for part in parts)
        case AnyOf(parts):
            return any(satisfies(part, document_id, metadata) for part in parts)
        case Not(part):
            return not satisfies(part, document_id, metadata)
        case OneOf(field, wanted):
            return any(_as_stored(value) in wanted for value in _values(field, document_id, metadata))
        case Within(field, low, high, date):
            here = [span(one)[0] if date else float(one) for one in _values(field, document_id, metadata)]
            return any((low is None or low <= one) and (high is None or one <= high) for one in here)
        case Exists(field):
            return bool(_values(field, document_id, metadata))
        case StartsWith(field, prefix):
            return any(one.startswith(prefix) for one in _values(field, document_id, metadata))
    raise TypeError(f"{type(tree).__name__} is not decided by a document alone")


def _as_stored(value: Any) -> Any:
    """Numbers are doubles."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _values(field: str, document_id: str, metadata: Mapping[str, Any]) -> list[Any]:
    if field == ID:
        return [document_id]
    value = metadata.get(field)
    values = value if isinstance(value, list) else [value]
    return [one for one in values if one is not None]
