"""Requests held against the limits that are settings, before anything is asked of OpenSearch."""

from query_api.search.request import SearchRequest, TwoPhaseSearch
from services.errors import InvalidInput
from services.settings import Settings


def checked(request: SearchRequest, settings: Settings) -> None:
    """Raises InvalidInput (`empty_query`, `bad_query`, `query_too_long`, `size_too_large`, `offset_too_large`,
    `offset_with_cursor`, `candidates_too_many`, `window_too_large`, `rerank_too_many`).
    """
    checked_text(request.query, settings)
    if request.size > settings.max_size:
        raise InvalidInput("size_too_large", f"`size` may be {settings.max_size} at most.")
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
    if request.rerank is not None and request.rerank.top > settings.max_rerank:
        raise InvalidInput("rerank_too_many", f"`rerank.top` may be {settings.max_rerank} at most.")


def checked_text(query: str, settings: Settings) -> None:
    """Raises InvalidInput (`empty_query`, `bad_query`, `query_too_long`) for words that cannot be searched for."""
    if not query.strip():
        raise InvalidInput("empty_query", "The query is empty.")
    if not query.isascii() and any("\ud800" <= character <= "\udfff" for character in query):
        raise InvalidInput("bad_query", "The query holds half of a surrogate pair, which is no character.")
    if len(query) > settings.max_query_characters:
        raise InvalidInput(
            "query_too_long",
            f"A query may have {settings.max_query_characters:,} characters; this has {len(query):,}.",
        )
