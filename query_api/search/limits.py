"""Requests held against the limits that are settings, before anything is asked of OpenSearch."""

from query_api.search.feedback_request import Context, Example
from query_api.search.request import SearchRequest, TwoPhaseSearch
from services.documents import checked_id
from services.errors import InvalidInput
from services.settings import Settings


def checked(request: SearchRequest, settings: Settings) -> None:
    """Raises InvalidInput (`empty_query`, `bad_query`, `query_too_long`, `size_too_large`, `offset_too_large`,
    `offset_with_cursor`, `candidates_too_many`, `window_too_large`, `rerank_too_many`), `bad_sort`, and what
    `checked_context` and `checked_feedback` raise.
    """
    looks_through = request.filter is not None or request.facets is not None or bool(request.sort)
    wordless = bool(request.like) or (looks_through and request.context is None)
    if request.query.strip() or not wordless or request.rerank is not None:  # a model reads words
        checked_text(request.query, settings)
    if request.context is not None:
        checked_context(request.context, settings)
    if request.asks_for_feedback:
        checked_feedback(request, settings)
    checked_size(request.size, settings)
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


def checked_size(size: int, settings: Settings) -> None:
    """Raises InvalidInput (`size_too_large`)."""
    if size > settings.max_size:
        raise InvalidInput("size_too_large", f"`size` may be {settings.max_size} at most.")


def checked_text(text: str, settings: Settings, what: str = "query") -> None:
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


def checked_context(context: Context, settings: Settings) -> None:
    """Raises InvalidInput (`too_many_turns`, `empty_turn`, `bad_turn`, `turn_too_long`)."""
    if len(context.turns) > settings.max_context_turns:
        raise InvalidInput(
            "too_many_turns",
            f"A context may have {settings.max_context_turns:,} turns; this has {len(context.turns):,}: leave out the "
            "oldest, which count least.",
        )
    for turn in context.turns:
        checked_text(turn, settings, "turn")


def checked_feedback(request: SearchRequest, settings: Settings) -> None:
    """Raises InvalidInput (`feedback_without_vectors`, `feedback_too_large`, `liked_and_unliked`, `empty_example`,
    `bad_example`, `example_too_long`, `bad_id`).
    """
    if request.mode == "lexical":
        raise InvalidInput(
            "feedback_without_vectors", "Feedback works on vectors: search in the mode `sparse` or `hybrid`."
        )
    if request.feedback is not None:
        _at_most("documents", request.feedback.documents, settings.max_feedback_documents)
        _at_most("pieces", request.feedback.pieces, settings.max_added_pieces)
    _at_most("like` and `unlike", len(request.like) + len(request.unlike), settings.max_feedback_documents)
    for one in (*request.like, *request.unlike):
        if isinstance(one, Example):
            checked_text(one.text, settings, "example")
        elif not one.isascii() and any("\ud800" <= character <= "\udfff" for character in one):
            raise InvalidInput("bad_id", "An id holds half of a surrogate pair, which is no character.")
        else:
            checked_id(one)
    if both := {one for one in request.like if isinstance(one, str)}.intersection(
        one for one in request.unlike if isinstance(one, str)
    ):
        raise InvalidInput("liked_and_unliked", f"A document is in `like` and in `unlike`: {sorted(both)[0]!r}.")


def _at_most(name: str, given: int, most: int) -> None:
    if given > most:
        raise InvalidInput("feedback_too_large", f"`{name}` of feedback may be {most:,} at most; given are {given:,}.")
