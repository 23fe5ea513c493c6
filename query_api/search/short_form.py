"""A search as an address can carry it, and the parts of one as a command line can."""

from collections.abc import Iterable
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from query_api.search.request import Mode, SearchRequest, Unit
from services.calendar_units import UNITS
from services.errors import InvalidInput

DEFAULT_TERMS = 10


class SearchAddress(BaseModel):
    """The parameters of GET search."""

    model_config = ConfigDict(extra="forbid")

    q: str = Field("", description="the words of the user; may be empty beside `filter`, `sort` or `facet`")
    mode: Mode = "hybrid"
    unit: Unit = "document"
    size: int = Field(10, ge=1)
    offset: int = Field(0, ge=0)
    cursor: str | None = Field(None, description="`*`, or that of the page before")
    explain: bool = False
    filter: str | None = Field(None, description="as in the body of a POST, in JSON")
    sort: list[str] = Field([], description="`year`, `year:asc` or `year:desc`")
    facet: list[str] = Field([], description="`genre`, `genre:25` (so many values) or `printed:month`")

    def request(self) -> SearchRequest:
        """What is asked. Raises InvalidInput as `read_short` does."""
        same = self.model_dump(include={"mode", "unit", "size", "offset", "cursor", "explain"})
        short = read_short(self.filter, self.sort, self.facet)
        return SearchRequest.model_validate({"query": self.q} | same | short)


def read_short(filter_json: str | None, sort: Iterable[str], facets: Iterable[str]) -> dict[str, Any]:
    """The members of a search request that these say; what is not said is left out.

    Raises InvalidInput (`bad_filter`, `bad_sort`, `bad_facet`) for what is not of the form; names and types are held
    against the index later.
    """
    members: dict[str, Any] = {}
    if filter_json is not None:
        try:
            members["filter"] = orjson.loads(filter_json)
        except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
            raise InvalidInput("bad_filter", f"filter: this is not JSON ({error}).", where="filter") from None
    if keys := [_key(text) for text in sort]:
        members["sort"] = keys
    if counted := [_facet(text) for text in facets]:
        members["facets"] = dict(counted)
        if len(members["facets"]) < len(counted):
            raise InvalidInput("bad_facet", "facet: a field is named twice, and each is counted in one way.")
    return members


def _key(text: str) -> dict[str, str]:
    field, colon, order = text.partition(":")
    if colon and order not in ("asc", "desc"):
        raise InvalidInput("bad_sort", f"sort: {text[:80]!a} is not of the form `year`, `year:asc` or `year:desc`.")
    return {"field": field, "order": order} if colon else {"field": field}


def _facet(text: str) -> tuple[str, dict[str, Any]]:
    field, colon, how = text.partition(":")
    if not colon:
        return field, {"terms": DEFAULT_TERMS}
    if how in UNITS:
        return field, {"dates": how}
    if how.isascii() and how.isdigit() and len(how) < 10 and int(how):
        return field, {"terms": int(how)}
    raise InvalidInput(
        "bad_facet",
        f"facet: {text[:80]!a} is not of the form `genre`, `genre:10` or `printed:month` ({', '.join(UNITS)}).",
    )
