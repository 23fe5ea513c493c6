"""Whether several indexes declare alike what they are sorted and counted by."""

from collections.abc import Sequence

from query_api.search.asked import Asked
from services.errors import InvalidInput
from services.index_spec import FieldType


def checked_kinds(each: Sequence[Asked]) -> None:
    """Raises InvalidInput (`bad_sort`, `bad_facet`) for a field that two of the indexes declare as different types:
    its values have no common order, and are not the same values.
    """
    first = each[0]
    for code, where, kinds in (("bad_sort", "sort", _sorted_by), ("bad_facet", "facets", _counted)):
        for other in each[1:]:
            here = kinds(first)
            for field, kind in kinds(other).items():
                if here[field] != kind:
                    raise InvalidInput(
                        code,
                        f"{where}: `{field}` is declared as {here[field]} in the index {first.generation.index!r} and "
                        f"as {kind} in {other.generation.index!r}; several indexes need it declared alike.",
                        where=where,
                    )


def mixed_fields(each: Sequence[Asked]) -> set[str]:
    """Fields that indexes declare as different types. A search over a snapshot asks every index, and one whose dates
    are asked for a number would refuse all of it; so what a rule of one index says of such a field is left out.
    """
    kinds: dict[str, FieldType] = {}
    mixed = set()
    for asked in each:
        for field, kind in asked.generation.spec.fields.items():
            if kinds.setdefault(field, kind) != kind:
                mixed.add(field)
    return mixed


def _sorted_by(asked: Asked) -> dict[str, FieldType]:
    return {by.field: by.kind for by in asked.selection.sort if by.kind is not None}


def _counted(asked: Asked) -> dict[str, FieldType]:
    return {facet.field: facet.kind for facet in asked.selection.facets or ()}
