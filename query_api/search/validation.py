"""Validation of a search request, before anything is sent to OpenSearch.

`check_request` compares a request with the limits in the settings. `parse_selection` compares its filter, sort keys and
facets with the declaration of the index and returns them as a `Selection`. `SearchParameters`, `SuggestParameters` and
`read_short` read the short forms of URLs and of the command line. Chapters and passages are ranked by words alone, so
`check_unit` refuses options for whole documents.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from query_api.schemas.refinement import Conversation, Example
from query_api.schemas.search_request import HitUnit, Mode, SearchRequest, TwoPhaseSearch
from query_api.search.facets import CheckedFacet, parse_facets
from query_api.search.sorting import SortField, parse_sort
from services.dates import CALENDAR_UNITS
from services.documents.document import validate_document_id
from services.errors import InvalidInput
from services.filters.parsing import FilterLimits, parse_filter
from services.filters.tree import Filter
from services.index_spec import FieldType, IndexSpec
from services.opensearch.queries import Clause, build_filter_clauses
from services.query.suggest import MAX_TYPED_CHARACTERS
from services.settings import Settings

DEFAULT_FACET_TERMS = 10
# Members for whole documents only: sorting, counting, expansion by whole vectors, and ways of scoring.
DOCUMENT_MEMBERS = (
    "cursor", "sort", "facets", "among", "rerank", "feedback", "like", "unlike", "include_liked", "two_phase",
    "score_by", "min_score", "total",
)  # fmt: skip


def check_request(request: SearchRequest, settings: Settings) -> None:
    """Check a request against the limits in the settings.

    Raises InvalidInput: `empty_query`, `bad_query`, `query_too_long`, `size_too_large`, `offset_too_large`,
    `offset_with_cursor`, `candidates_too_many`, `window_too_large`, `rerank_too_many`, `bad_sort`, and the codes of
    `check_conversation` and `check_feedback`.
    """
    selects = request.filter is not None or request.facets is not None or bool(request.sort)
    may_lack_words = bool(request.like) or (selects and request.context is None)
    # A reranker needs words.
    if request.query.strip() or not may_lack_words or request.rerank is not None:
        check_text(request.query, settings)
    if request.context is not None:
        check_conversation(request.context, settings)
    if request.uses_feedback:
        check_feedback(request, settings)
    check_size(request.size, settings)
    if request.offset:
        if request.offset + request.size > settings.max_offset:
            raise InvalidInput(
                "offset_too_large",
                f"`offset` and `size` may be {settings.max_offset:,} together; use a `cursor` for later pages.",
            )
        if request.cursor is not None:
            raise InvalidInput("offset_with_cursor", "A `cursor` states where its page begins: leave out `offset`.")
    if request.candidates > settings.max_candidates:
        raise InvalidInput("candidates_too_many", f"`candidates` may be {settings.max_candidates} at most.")
    two_phase = request.two_phase
    if isinstance(two_phase, TwoPhaseSearch) and (two_phase.window or 0) > settings.max_two_phase_window:
        raise InvalidInput("window_too_large", f"`window` may be {settings.max_two_phase_window:,} at most.")
    if request.rerank is not None and request.sort:
        raise InvalidInput("bad_sort", "`sort` and `rerank` are two orders: use one of them.")
    if request.rerank is not None and (request.rerank.top or 0) > settings.max_rerank:
        raise InvalidInput("rerank_too_many", f"`rerank.top` may be {settings.max_rerank} at most.")


def check_size(size: int, settings: Settings) -> None:
    """Check the number of hits. Raises InvalidInput (`size_too_large`)."""
    if size > settings.max_size:
        raise InvalidInput("size_too_large", f"`size` may be {settings.max_size} at most.")


def check_text(text: str, settings: Settings, kind: str = "query") -> None:
    """Check that words can be searched for.

    Raises InvalidInput (`empty_query`, `bad_query`, `query_too_long`; for a turn or an example with that word in place
    of `query`).
    """
    if not text.strip():
        raise InvalidInput(f"empty_{kind}", f"The {kind} is empty.")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput(f"bad_{kind}", f"The {kind} contains half of a surrogate pair, which is not a character.")
    if len(text) > settings.max_query_characters:
        raise InvalidInput(
            f"{kind}_too_long",
            f"The {kind} has {len(text):,} characters; it may have {settings.max_query_characters:,}.",
        )


def check_conversation(conversation: Conversation, settings: Settings) -> None:
    """Check the turns of a conversation.

    Raises InvalidInput (`too_many_turns`, `empty_turn`, `bad_turn`, `turn_too_long`).
    """
    if len(conversation.turns) > settings.max_context_turns:
        raise InvalidInput(
            "too_many_turns",
            f"A context may have {settings.max_context_turns:,} turns; this has {len(conversation.turns):,}. "
            "Leave out the oldest turns, which count least.",
        )
    for turn in conversation.turns:
        check_text(turn, settings, "turn")


def check_feedback(request: SearchRequest, settings: Settings) -> None:
    """Check feedback and examples.

    Raises InvalidInput (`feedback_without_vectors`, `feedback_too_large`, `liked_and_unliked`, `empty_example`,
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
    for example in (*request.like, *request.unlike):
        if isinstance(example, Example):
            check_text(example.text, settings, "example")
        elif not example.isascii() and any("\ud800" <= character <= "\udfff" for character in example):
            raise InvalidInput("bad_id", "An id contains half of a surrogate pair, which is not a character.")
        else:
            validate_document_id(example)
    if both := {example for example in request.like if isinstance(example, str)}.intersection(
        example for example in request.unlike if isinstance(example, str)
    ):
        raise InvalidInput("liked_and_unliked", f"A document is in `like` and in `unlike`: {sorted(both)[0]!r}.")


def _check_limit(name: str, value: int, limit: int) -> None:
    if value > limit:
        raise InvalidInput(
            "feedback_too_large", f"`{name}` of feedback may be {limit:,} at most; the request has {value:,}."
        )


@dataclass(frozen=True, slots=True)
class Selection:
    """The validated filter, sort keys and facets of a request.

    `clauses` express the filter. `facets` is None when nothing is counted. `columns`: the fields whose values a list of
    candidates includes, for sorting and counting.
    """

    filter: Filter | None = None
    clauses: tuple[Clause, ...] = ()
    sort: tuple[SortField, ...] = ()
    facets: tuple[CheckedFacet, ...] | None = None
    columns: Mapping[str, FieldType] = field(default_factory=dict)

    def only_filtered(self) -> "Selection":
        """Return the selection with the same filter, neither counted nor sorted."""
        return Selection(self.filter, self.clauses)


# The selection of a request without filter, sort keys and facets.
EVERYTHING = Selection()


def parse_selection(request: SearchRequest, spec: IndexSpec, settings: Settings) -> Selection:
    """Validate a request against the declaration of an index.

    Raises InvalidInput: the codes of `parse_filter`, `parse_sort` and `parse_facets`; `undeclared_metadata` for a field
    to return; `not_scored_by`; `not_by_unit`.
    """
    check_unit(request, spec)
    if request.score_by is not None and request.score_by not in spec.scored_by:
        wanted = "nested" if request.score_by == "window" else "merged"
        raise InvalidInput(
            "not_scored_by",
            f"The index has no vectors to score by {request.score_by} (its `windows` are {spec.windows}): "
            f"sparsewell reindex --windows both (or {wanted}) copies them from the stored windows.",
        )
    for name in request.fields:
        _check_field(name, spec)
    if request.filter is None and request.facets is None and not request.sort:
        return EVERYTHING
    filter_tree = None if request.filter is None else filter_of(request.filter, spec, settings)
    scored = is_scored(request)
    sort = parse_sort(request.sort, spec.fields, scored=scored)
    facets = None if request.facets is None else parse_facets(request.facets, spec.fields, settings)
    columns: dict[str, FieldType] = {}
    if request.chosen_among == "candidates":
        columns = {key.field: key.kind for key in sort if key.kind is not None}
        columns |= {facet.field: facet.kind for facet in facets or ()}
    return Selection(filter_tree, tuple(build_filter_clauses(filter_tree)), sort, facets, columns)


def is_scored(request: SearchRequest) -> bool:
    """Return whether hits have scores.

    A hybrid search sorted among all matches has none: scores of two lists compare only after fusion, and fusion has
    only candidates.
    """
    return not request.browses and not (request.sort and request.mode == "hybrid" and request.chosen_among == "matches")


def filter_of(value: Any, spec: IndexSpec, settings: Settings) -> Filter:
    """Parse the filter of a request. Raises InvalidInput as `parse_filter` does."""
    return parse_filter(value, spec.fields, limits_of(settings))


def limits_of(settings: Settings) -> FilterLimits:
    """Return the limits of a filter's size from the settings."""
    return FilterLimits(settings.max_filter_depth, settings.max_filter_conditions, settings.max_filter_values)


def _check_field(name: str, spec: IndexSpec) -> None:
    """Raise InvalidInput (`undeclared_metadata`) for a single metadata field that the index does not declare."""
    field = name.removeprefix("metadata.")
    if field != name and field not in spec.fields:
        known = ", ".join(sorted(spec.fields)) or "none"
        raise InvalidInput(
            "undeclared_metadata", f"fields: the index declares no metadata field {field!r} (declared: {known})."
        )


def check_unit(request: SearchRequest, spec: IndexSpec) -> None:
    """Raise InvalidInput (`not_by_unit`, with `member`) for options that a search for chapters or passages lacks."""
    unit = request.unit
    if unit == "document":
        if request.per_document is not None:
            raise _not_by_unit("per_document", "it is for the units `chapter` and `passage` only")
        return
    for name in DOCUMENT_MEMBERS:
        if getattr(request, name) != SearchRequest.model_fields[name].get_default(call_default_factory=True):
            raise _not_by_unit(name, f"it is for whole documents, not for the unit `{unit}`")
    if not request.query.strip():
        raise _not_by_unit("query", f"the unit `{unit}` is found by words, and the query has none")
    if unit == "chapter" and spec.talk is None:
        raise _not_by_unit("unit", "the index declares no talk, so it has no chapters")
    if unit == "passage" and "window" not in spec.scored_by:
        raise _not_by_unit(
            "unit",
            f"the index keeps no vectors of passages (its `windows` are {spec.windows}): sparsewell reindex --windows "
            "both adds them",
        )
    if unit == "passage" and spec.talk is None and request.mode != "sparse":
        raise _not_by_unit(
            "mode",
            "only an index that declares talk stores the words of passages; search others for passages in the mode "
            "`sparse`",
        )


def _not_by_unit(member: str, why: str) -> InvalidInput:
    return InvalidInput("not_by_unit", f"`{member}`: {why}.", member=member)


class SearchParameters(BaseModel):
    """The query parameters of GET search."""

    model_config = ConfigDict(extra="forbid")

    q: str = Field("", description="the words of the user; may be empty beside `filter`, `sort` or `facet`")
    mode: Mode = "hybrid"
    unit: HitUnit = "document"
    size: int = Field(10, ge=1)
    offset: int = Field(0, ge=0)
    cursor: str | None = Field(None, description="`*`, or that of the page before")
    explain: bool = False
    min_score: float | None = Field(None, gt=0, le=1, description="least match of a hit, as in the body of a POST")
    total: bool = Field(False, description="count the documents that match")
    filter: str | None = Field(None, description="as in the body of a POST, in JSON")
    sort: list[str] = Field([], description="`year`, `year:asc` or `year:desc`")
    facet: list[str] = Field([], description="`genre`, `genre:25` (so many values) or `printed:month`")

    def request(self) -> SearchRequest:
        """Return the search request. Raises InvalidInput as `read_short` does."""
        plain = self.model_dump(include={"mode", "unit", "size", "offset", "cursor", "explain", "min_score", "total"})
        short = read_short(self.filter, self.sort, self.facet)
        return SearchRequest.model_validate({"query": self.q} | plain | short)


class SuggestParameters(BaseModel):
    """The query parameters of GET suggest."""

    model_config = ConfigDict(extra="forbid")

    q: str = Field(
        "",
        description=f"the typed text, {MAX_TYPED_CHARACTERS} characters at most; a space ends a word; empty: frequent "
        "queries",
    )
    size: int = Field(8, ge=1, description="number of suggestions at most")
    fuzzy: bool = Field(True, description="then also words that differ by one letter, or by two from nine letters on")
    filter: str | None = Field(
        None, description="suggest only titles of documents under this filter (JSON, as in a search), and no queries"
    )


def read_short(filter_json: str | None, sort: Iterable[str], facets: Iterable[str]) -> dict[str, Any]:
    """Return the members of a search request that the short forms state, without absent members.

    Raises InvalidInput (`bad_filter`, `bad_sort`, `bad_facet`) for a malformed value. Names and types are compared with
    the index later.
    """
    members: dict[str, Any] = {}
    if filter_json is not None:
        try:
            members["filter"] = orjson.loads(filter_json)
        except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
            raise InvalidInput("bad_filter", f"filter: not valid JSON ({error}).", where="filter") from None
    if keys := [_parse_sort_key(text) for text in sort]:
        members["sort"] = keys
    if named := [_parse_facet(text) for text in facets]:
        members["facets"] = dict(named)
        if len(members["facets"]) < len(named):
            raise InvalidInput("bad_facet", "facet: a field is named twice; each field has one facet.")
    return members


def _parse_sort_key(text: str) -> dict[str, str]:
    field, colon, order = text.partition(":")
    if colon and order not in ("asc", "desc"):
        raise InvalidInput("bad_sort", f"sort: {text[:80]!a} is not of the form `year`, `year:asc` or `year:desc`.")
    return {"field": field, "order": order} if colon else {"field": field}


def _parse_facet(text: str) -> tuple[str, dict[str, Any]]:
    field, colon, form = text.partition(":")
    if not colon:
        return field, {"terms": DEFAULT_FACET_TERMS}
    if form in CALENDAR_UNITS:
        return field, {"dates": form}
    if form.isascii() and form.isdigit() and len(form) < 10 and int(form):
        return field, {"terms": int(form)}
    raise InvalidInput(
        "bad_facet",
        f"facet: {text[:80]!a} is not of the form `genre`, `genre:10` or `printed:month` "
        f"({', '.join(CALENDAR_UNITS)}).",
    )
