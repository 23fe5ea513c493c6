"""The form of filters and ranges as the OpenAPI document shows it.

They are read by `services.filters.reading`, which knows the index and words its refusals: these types only describe.
"""

from typing import Annotated, Any, Required, Union

from pydantic import ConfigDict, Field, PlainValidator, with_config
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

_CLOSED = ConfigDict(extra="forbid")
_Bound = float | str


@with_config(_CLOSED)
class Range(TypedDict, total=False):
    """One or two bounds, numbers or dates. A date without a time is the whole day."""

    gt: _Bound
    gte: _Bound
    lt: _Bound
    lte: _Bound


_Condition = TypedDict(
    "_Condition",
    {
        "field": Required[Annotated[str, Field(description="a declared metadata field, `_id` or `_state`")]],
        "is": Annotated[str | float | bool, Field(description="has this value")],
        "any_of": Annotated[list[str | float | bool], Field(min_length=1, description="has one of these values")],
        "range": Annotated[Range, Field(description="number, date: has a value between the bounds")],
        "prefix": Annotated[str, Field(min_length=1, description="keyword: has a value that begins so")],
        "match": Annotated[str, Field(min_length=1, description="text: all of these words occur")],
        "exists": Annotated[bool, Field(description="has a value, or (false) has none")],
    },
    total=False,
)


@with_config(ConfigDict(extra="forbid", json_schema_extra={"minProperties": 2, "maxProperties": 2}))
class FilterCondition(_Condition, total=False):
    """A field and one operator. Of several values of the field one is enough."""


@with_config(_CLOSED)
class FilterAll(TypedDict):
    """Every part holds."""

    all: Annotated[list["FilterForm"], Field(min_length=1)]


@with_config(_CLOSED)
class FilterAny(TypedDict):
    """At least one part holds."""

    any: Annotated[list["FilterForm"], Field(min_length=1)]


_Not = TypedDict("_Not", {"not": "FilterForm"})


@with_config(_CLOSED)
class FilterNot(_Not):
    """The part does not hold; a document without the field is found too."""


FilterForm = Union[FilterCondition, FilterAll, FilterAny, FilterNot]  # noqa: UP007 (a forward reference is in it)


def _as_it_is(value: Any) -> Any:
    return value


OneFilterJson = Annotated[Any, PlainValidator(_as_it_is, json_schema_input_type=FilterForm)]
FilterJson = Annotated[Any, PlainValidator(_as_it_is, json_schema_input_type=FilterForm | None)]
RangesJson = Annotated[list[Any], PlainValidator(_as_it_is, json_schema_input_type=list[Range])]
