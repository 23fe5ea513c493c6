"""Requests held against the limits that are settings, before anything is asked of OpenSearch.

A search as an address can carry it, and the parts of one as a command line can.

What may be asked beside `unit`: chapters and passages are ranked by words, and nothing else.

What a request says of documents beside its words: which may be found, in what order, what is counted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from query_api.schemas.search_request import Context, Example, HitUnit, Mode, SearchRequest, TwoPhaseSearch
from query_api.search.facets import CheckedFacet, parse_facets
from query_api.search.sorting import SortField, parse_sort
from services.dates import CALENDAR_UNITS
from services.documents.document import validate_document_id
from services.errors import InvalidInput
from services.filters.parsing import FilterLimits, parse_filter
from services.filters.tree import Filter
from services.index_spec import FieldType, IndexSpec
from services.opensearch.queries import Clause, build_filter_clauses
from services.settings import Settings

DEFAULT_FACET_TERMS = 10


class SearchAddress(BaseModel):
    """The parameters of GET search."""

    model_config = ConfigDict(extra="forbid")

    q: str = Field("", description="the words of the user; may be empty beside `filter`, `sort` or `facet`")
    mode: Mode = "hybrid"
    unit: HitUnit = "document"
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
    if keys := [_parse_sort_key(text) for text in sort]:
        members["sort"] = keys
    if counted := [_parse_facet(text) for text in facets]:
        members["facets"] = dict(counted)
        if len(members["facets"]) < len(counted):
            raise InvalidInput("bad_facet", "facet: a field is named twice, and each is counted in one way.")
    return members


def _parse_sort_key(text: str) -> dict[str, str]:
    field, colon, order = text.partition(":")
    if colon and order not in ("asc", "desc"):
        raise InvalidInput("bad_sort", f"sort: {text[:80]!a} is not of the form `year`, `year:asc` or `year:desc`.")
    return {"field": field, "order": order} if colon else {"field": field}


def _parse_facet(text: str) -> tuple[str, dict[str, Any]]:
    field, colon, how = text.partition(":")
    if not colon:
        return field, {"terms": DEFAULT_FACET_TERMS}
    if how in CALENDAR_UNITS:
        return field, {"dates": how}
    if how.isascii() and how.isdigit() and len(how) < 10 and int(how):
        return field, {"terms": int(how)}
    raise InvalidInput(
        "bad_facet",
        f"facet: {text[:80]!a} is not of the form `genre`, `genre:10` or `printed:month` ({', '.join(CALENDAR_UNITS)}).",
    )


# Members that are of documents. Their order and their counts, what moves the query by whole vectors, what scores them.
DOCUMENT_MEMBERS = (
    "cursor", "sort", "facets", "among", "rerank", "feedback", "like", "unlike", "include_liked", "two_phase",
    "score_by",
)  # fmt: skip


def check_unit(request: SearchRequest, spec: IndexSpec) -> None:
    """Raises InvalidInput (`not_by_unit`) for what a search for parts of documents cannot do, with the `member`."""
    unit = request.unit
    if unit == "document":
        if request.per_document is not None:
            raise _not_by_unit("per_document", "it is for the units `chapter` and `passage`")
        return
    for name in DOCUMENT_MEMBERS:
        if getattr(request, name) != SearchRequest.model_fields[name].get_default(call_default_factory=True):
            raise _not_by_unit(name, f"it is for whole documents, and not for the unit `{unit}`")
    if not request.query.strip():
        raise _not_by_unit("query", f"the unit `{unit}` is found by words; there are none")
    if unit == "chapter" and spec.talk is None:
        raise _not_by_unit("unit", "the index declares no talk, so nothing in it has chapters")
    if unit == "passage" and "window" not in spec.scored_by:
        raise _not_by_unit(
            "unit",
            f"the index keeps no vectors of passages (its `windows` are {spec.windows}): sparsewell reindex --windows "
            "both adds them",
        )
    if unit == "passage" and spec.talk is None and request.mode != "sparse":
        raise _not_by_unit(
            "mode",
            "only an index that declares talk keeps the words of passages: elsewhere they are found in the mode "
            "`sparse`",
        )


def _not_by_unit(member: str, why: str) -> InvalidInput:
    return InvalidInput("not_by_unit", f"`{member}`: {why}.", member=member)


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a request that was held against the declaration of the index.

    `clauses` say the filter. `facets` is None when nothing is counted. `columns`: the fields whose values are read
    beside a list of candidates, to be sorted or counted by.
    """

    filter: Filter | None = None
    clauses: tuple[Clause, ...] = ()
    sort: tuple[SortField, ...] = ()
    facets: tuple[CheckedFacet, ...] | None = None
    columns: Mapping[str, FieldType] = field(default_factory=dict)

    def only_filtered(self) -> "Selection":
        """The same documents, neither counted nor sorted."""
        return Selection(self.filter, self.clauses)


EVERYTHING = Selection()


def parse_selection(request: SearchRequest, spec: IndexSpec, settings: Settings) -> Selection:
    """Reads a request against an index.

    Raises InvalidInput: what `parse_filter`, `checked_sort` and `checked_facets` raise, `undeclared_metadata` for a
    field to return, `not_scored_by`, and `not_by_unit`.
    """
    check_unit(request, spec)
    if request.score_by is not None and request.score_by not in spec.scored_by:
        wanted = "nested" if request.score_by == "window" else "merged"
        raise InvalidInput(
            "not_scored_by",
            f"The index has no vectors to score by {request.score_by} (its `windows` are {spec.windows}): "
            f"sparsewell reindex --windows both (or {wanted}) copies them from what is stored.",
        )
    for name in request.fields:
        _check_field(name, spec)
    if request.filter is None and request.facets is None and not request.sort:
        return EVERYTHING
    tree = None if request.filter is None else filter_of(request.filter, spec, settings)
    scored = is_scored(request)
    sort = parse_sort(request.sort, spec.fields, scored=scored)
    facets = None if request.facets is None else parse_facets(request.facets, spec.fields, settings)
    columns: dict[str, FieldType] = {}
    if request.chosen_among == "candidates":
        columns = {by.field: by.kind for by in sort if by.kind is not None}
        columns |= {facet.field: facet.kind for facet in facets or ()}
    return Selection(tree, tuple(build_filter_clauses(tree)), sort, facets, columns)


def filter_of(value: Any, spec: IndexSpec, settings: Settings) -> Filter:
    """The filter that a request says. Raises InvalidInput as `parse_filter` does."""
    return parse_filter(value, spec.fields, limits_of(settings))


def limits_of(settings: Settings) -> FilterLimits:
    """How large a filter may be here."""
    return FilterLimits(settings.max_filter_depth, settings.max_filter_conditions, settings.max_filter_values)


def is_scored(request: SearchRequest) -> bool:
    """Whether hits have scores. Those of two lists are of one kind once they are fused, and only candidates are."""
    return not request.browses and not (request.sort and request.mode == "hybrid" and request.chosen_among == "matches")


def _check_field(name: str, spec: IndexSpec) -> None:
    single = name.removeprefix("metadata.")
    if single != name and single not in spec.fields:
        known = ", ".join(sorted(spec.fields)) or "none"
        raise InvalidInput(
            "undeclared_metadata", f"fields: the index declares no metadata field {single!r} (declared: {known})."
        )


def check_request(request: SearchRequest, settings: Settings) -> None:
    """Raises InvalidInput (`empty_query`, `bad_query`, `query_too_long`, `size_too_large`, `offset_too_large`,
    `offset_with_cursor`, `candidates_too_many`, `window_too_large`, `rerank_too_many`), `bad_sort`, and what
    `checked_context` and `checked_feedback` raise.
    """
    looks_through = request.filter is not None or request.facets is not None or bool(request.sort)
    wordless = bool(request.like) or (looks_through and request.context is None)
    if request.query.strip() or not wordless or request.rerank is not None:  # a model reads words
        check_text(request.query, settings)
    if request.context is not None:
        check_context(request.context, settings)
    if request.asks_for_feedback:
        check_feedback(request, settings)
    check_size(request.size, settings)
    if request.offset:
        if request.offset + request.size > settings.max_offset:
            raise InvalidInput(
                "offset_too_large",
                f"`offset` and `size` may be {settings.max_offset:,} together: go further with a `cursor`.",
            )
        if request.cursor is not None:
            raise InvalidInput("offset_with_cursor", "A `cursor` says where its page begins: leave `offset` away.")
    if request.candidates > settings.max_candidates:
        raise InvalidInput("candidates_too_many", f"`candidates` may be {settings.max_candidates} at most.")
    phases = request.two_phase
    if isinstance(phases, TwoPhaseSearch) and (phases.window or 0) > settings.max_two_phase_window:
        raise InvalidInput("window_too_large", f"`window` may be {settings.max_two_phase_window:,} at most.")
    if request.rerank is not None and request.sort:
        raise InvalidInput("bad_sort", "`sort` and `rerank` are two orders: ask for one of them.")
    if request.rerank is not None and request.rerank.top > settings.max_rerank:
        raise InvalidInput("rerank_too_many", f"`rerank.top` may be {settings.max_rerank} at most.")


def check_size(size: int, settings: Settings) -> None:
    """Raises InvalidInput (`size_too_large`)."""
    if size > settings.max_size:
        raise InvalidInput("size_too_large", f"`size` may be {settings.max_size} at most.")


def check_text(text: str, settings: Settings, what: str = "query") -> None:
    """Raises InvalidInput (`empty_query`, `bad_query`, `query_too_long`, or of something else than the query `empty_…`
    and so on) for words that cannot be searched for.
    """
    if not text.strip():
        raise InvalidInput(f"empty_{what}", f"The {what} is empty.")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput(f"bad_{what}", f"The {what} holds half of a surrogate pair, which is no character.")
    if len(text) > settings.max_query_characters:
        raise InvalidInput(
            f"{what}_too_long",
            f"The {what} has {len(text):,} characters; it may have {settings.max_query_characters:,}.",
        )


def check_context(context: Context, settings: Settings) -> None:
    """Raises InvalidInput (`too_many_turns`, `empty_turn`, `bad_turn`, `turn_too_long`)."""
    if len(context.turns) > settings.max_context_turns:
        raise InvalidInput(
            "too_many_turns",
            f"A context may have {settings.max_context_turns:,} turns; this has {len(context.turns):,}: leave out the "
            "oldest, which count least.",
        )
    for turn in context.turns:
        check_text(turn, settings, "turn")


def check_feedback(request: SearchRequest, settings: Settings) -> None:
    """Raises InvalidInput (`feedback_without_vectors`, `feedback_too_large`, `liked_and_unliked`, `empty_example`,
    `bad_example`, `example_too_long`, `bad_id`).
    """
    if request.mode == "lexical":
        raise InvalidInput(
            "feedback_without_vectors", "Feedback works on vectors: search in the mode `sparse` or `hybrid`."
        )
    if request.feedback is not None:
        _check_limit("documents", request.feedback.documents, settings.max_feedback_documents)
        _check_limit("pieces", request.feedback.pieces, settings.max_added_pieces)
    _check_limit("like` and `unlike", len(request.like) + len(request.unlike), settings.max_feedback_documents)
    for one in (*request.like, *request.unlike):
        if isinstance(one, Example):
            check_text(one.text, settings, "example")
        elif not one.isascii() and any("\ud800" <= character <= "\udfff" for character in one):
            raise InvalidInput("bad_id", "An id holds half of a surrogate pair, which is no character.")
        else:
            validate_document_id(one)
    if both := {one for one in request.like if isinstance(one, str)}.intersection(
        one for one in request.unlike if isinstance(one, str)
    ):
        raise InvalidInput("liked_and_unliked", f"A document is in `like` and in `unlike`: {sorted(both)[0]!r}.")


def _check_limit(name: str, given: int, most: int) -> None:
    if given > most:
        raise InvalidInput("feedback_too_large", f"`{name}` of feedback may be {most:,} at most; given are {given:,}.")
