"""Suggestions while a user types: titles of documents and frequent queries.

`complete_text` needs one request to OpenSearch. Curation rules that hide a document for its own title hide it here
too; such titles cost a second request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from query_api.app_state import AppState
from query_api.search.executor import Stopwatch, complete_hits
from query_api.search.pipeline import in_time
from query_api.search.validation import SuggestParameters, check_size, filter_of, read_short
from services.curation.matching import CompiledRules
from services.dates import now_ms
from services.errors import SparsewellError
from services.index_spec import Generation
from services.opensearch.queries import Clause, SearchPlan, build_filter_clauses, msearch_call
from services.opensearch.suggestions import query_suggestions_plan, read_same_title_hits, title_suggestions_plan
from services.query.suggest import clean_typed_text, fold_text, locate_typed_words

SuggestionList = list[dict[str, Any]]


async def complete_text(app: AppState, index: str, request: SuggestParameters) -> dict[str, Any]:
    """Return the answer with the suggestions for a request.

    Raises InvalidInput (`query_too_long`, `size_too_large`, the codes of `parse_filter`), NotFound (`index_not_found`)
    and BackendUnavailable, as a search does.
    """
    typed = clean_typed_text(request.q)
    check_size(request.size, app.settings)
    condition = read_short(request.filter, (), ()).get("filter")

    async def suggest(prefer_local: bool) -> dict[str, Any]:
        generation = await app.generation(index, prefer_local=prefer_local)
        clauses = (
            None if condition is None else build_filter_clauses(filter_of(condition, generation.spec, app.settings))
        )
        if app.principal.filter is not None:
            clauses = clauses or []  # Any filter excludes frequent queries, which other principals sent.
        suggestions = await _SuggestionLookup(app, generation, typed, request).run(clauses)
        return {"index": index, "q": request.q, "suggestions": suggestions, "titles": generation.suggests}

    return await in_time(app, [index], suggest)


@dataclass(frozen=True, slots=True)
class _SuggestionLookup:
    """The lookup of the suggestions for one request."""

    app: AppState
    generation: Generation
    typed: str
    request: SuggestParameters

    async def run(self, clauses: Sequence[Clause] | None) -> SuggestionList:
        """Return frequent queries and then titles, each text once. Queries get at least half of the places.

        `clauses` is the filter. With a filter there are no queries: they may be about documents outside of it.
        """
        rules = self.app.curations.of(self.generation)
        plans = {}
        if self.typed and self.generation.suggests:
            plans["title"] = self._title_plan(clauses or (), rules)
        if clauses is None:
            plans["query"] = self._query_plan()
        if not plans:
            return []
        settings = self.app.settings
        call = msearch_call(plans.values(), settings.search_timeout, prefer_local=self.app.prefer_local)
        answers = dict(zip(plans, (await self.app.search.send(call))["responses"], strict=True))
        titles = await self._read_titles(answers["title"], clauses or (), rules) if "title" in answers else []
        title_texts = {fold_text(title["text"]) for title in titles}
        queries = [
            query for query in self._read_queries(answers.get("query")) if fold_text(query["text"]) not in title_texts
        ]
        size = self.request.size
        queries = queries[: max(size // 2, size - len(titles))]
        return queries + titles[: size - len(queries)]

    def _title_plan(self, clauses: Sequence[Clause], rules: CompiledRules | None, alike: int = 1) -> SearchPlan:
        """Plan the search for titles, for twice as many when rules may hide some. `alike`: documents per title."""
        max_pieces, timeout = self.app.settings.max_query_pieces, self.app.settings.search_timeout
        hidden = () if rules is None else sorted(rules.matched(self.typed, max_pieces).hidden)
        size = self.request.size if rules is None else 2 * self.request.size
        physical, fuzzy = self.generation.physical, self.request.fuzzy
        return title_suggestions_plan(physical, self.typed, size, clauses, hidden, timeout, fuzzy=fuzzy, alike=alike)

    async def _read_titles(
        self, answer: Mapping[str, Any], clauses: Sequence[Clause], rules: CompiledRules | None
    ) -> SuggestionList:
        """Return titles of documents that the rules hide neither for the typed text nor for the title itself.

        When a document is hidden for its title, a second request looks for other documents with that title. It costs
        five times the first request.
        """
        titles = complete_hits(answer, Stopwatch())
        if rules is not None and any(self._hides(rules, hit) for hit in titles):
            settings = self.app.settings
            plan = self._title_plan(clauses, rules, 1 + rules.most_hidden)
            call = msearch_call([plan], settings.search_timeout, prefer_local=self.app.prefer_local)
            titles = complete_hits((await self.app.search.send(call))["responses"][0], Stopwatch())
        visible = (
            next((hit for hit in read_same_title_hits(title) if not self._hides(rules, hit)), None) for title in titles
        )
        suggestions = [self._format(hit["_source"]["title"], "title", hit["_id"]) for hit in visible if hit is not None]
        return suggestions[: self.request.size]

    def _hides(self, rules: CompiledRules | None, hit: Mapping[str, Any]) -> bool:
        max_pieces = self.app.settings.max_query_pieces
        return rules is not None and hit["_id"] in rules.matched(hit["_source"]["title"], max_pieces).hidden

    def _query_plan(self) -> SearchPlan:
        settings = self.app.settings
        min_times, timeout = settings.suggest_after, settings.search_timeout
        names, size = self.app.names, 2 * self.request.size
        return query_suggestions_plan(names, self.generation, self.typed, size, min_times, now_ms(), timeout)

    def _read_queries(self, answer: Mapping[str, Any] | None) -> SuggestionList:
        """Return the frequent queries; none when they cannot be read, because titles are useful alone."""
        try:
            hits = [] if answer is None else complete_hits(answer, Stopwatch())
        except SparsewellError:
            return []
        return [self._format(hit["_source"]["query"], "query") for hit in hits]

    def _format(self, text: str, kind: str, document_id: str | None = None) -> dict[str, Any]:
        typed = [words._asdict() for words in locate_typed_words(text, self.typed)]
        return {"text": text, "kind": kind, "id": document_id, "typed": typed}
