"""What may be asked of counts and order, as the OpenAPI document shows it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.calendar_units import Unit
from services.filters.form import RangesJson

Among = Literal["matches", "candidates"]


class Facet(BaseModel):
    """What to count of one field: its values, ranges that you name, or stretches of the calendar."""

    model_config = ConfigDict(extra="forbid", strict=True)

    terms: int | None = Field(None, ge=1, description="keyword, number, boolean: so many of the most frequent values")
    ranges: RangesJson | None = Field(None, description="number, date: how many have a value in each range")
    dates: Unit | None = Field(None, description="date: how many in each stretch of the calendar, UTC")
    ignore_own_filter: bool = Field(
        False,
        description="count as if the filter did not restrict this field, so that a shop can show what else there is",
    )

    @model_validator(mode="after")
    def _one(self) -> "Facet":
        if sum(given is not None for given in (self.terms, self.ranges, self.dates)) != 1:
            raise ValueError("a facet has one of `terms`, `ranges` and `dates`")
        return self


class SortKey(BaseModel):
    """What to sort by. Of several values the least counts in ascending order, the greatest in descending order."""

    model_config = ConfigDict(extra="forbid", strict=True)

    field: str = Field(description="a declared keyword, number, date or boolean, or `_score`", examples=["year"])
    order: Literal["asc", "desc"] | None = Field(None, description="ascending, but of `_score` descending")
