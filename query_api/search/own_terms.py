"""Which terms of an explanation are the user's own: asked of the analyser of keyword search, for explanations only."""

from query_api.search.asked import Asked
from query_api.search.curated import Curated, OwnTerms
from services.errors import NotFound


async def read_own_terms(asked: Asked, curated: Curated) -> None:
    """Tells the rules' side of a search what the analyser makes of the query, and of what rules weigh in it."""
    words, spans = asked.request.query, curated.matched.spans
    if not spans or not asked.request.explain or asked.request.mode == "sparse":
        return
    weighed = [span.text for span in spans if span.phrase or span.factor != 1]
    distinct = list(dict.fromkeys([words, *weighed]))
    try:
        found = await asked.engine.terms(asked.generation.physical, "lexical", distinct)
    except NotFound:
        return  # of a snapshot whose generation was dropped: contributions are explained, where they come from is not
    asked.watch.lap("opensearch")

    def of(*texts: str) -> frozenset[str]:
        return frozenset(term.text for text in texts for term in found.get(text, ()))

    curated.terms = OwnTerms(of(words), of(*weighed))
