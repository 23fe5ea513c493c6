"""Completes what somebody types, by titles and frequent queries: one request to OpenSearch, one deadline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from query_api.app_state import AppState
from query_api.schemas.admin import SuggestAddress
from query_api.search.executor import Stopwatch, complete_hits
from query_api.search.pipeline import in_time
from query_api.search.validation import check_size, filter_of, read_short
from services.curation.matching import CompiledRules
from services.errors import SparsewellError
from services.index_spec import Generation
from services.opensearch.journal import now_ms
from services.opensearch.queries import Clause, SearchPlan, build_filter_clauses, msearch_call
from services.opensearch.suggestions import query_suggestions_plan, read_same_title_hits, title_suggestions_plan
from services.query.suggest import clean_typed_text, fold_text, locate_typed_words

SuggestionList = list[dict[str, Any]]


async def complete_text(app: AppState, index: str, asked: SuggestAddress) -> dict[str, Any]:
    """Answers a request.

    Raises InvalidInput (`query_too_long`, `size_too_large`, what `parse_filter` raises), NotFound (`index_not_found`)
    and BackendUnavailable, as a search does.
    """
    typed = clean_typed_text(asked.q)
    check_size(asked.size, app.settings)
    condition = read_short(asked.filter, (), ()).get("filter")

    async def of(near: bool) -> dict[str, Any]:
        generation = await app.generation(index, near=near)
        clauses = (
            None if condition is None else build_filter_clauses(filter_of(condition, generation.spec, app.settings))
        )
        if app.who.filter is not None:
            clauses = clauses or []  # (so no queries: others asked them)
        found = await _SuggestionLookup(app, generation, typed, asked).found(clauses)
        return {"index": index, "q": asked.q, "suggestions": found, "titles": generation.suggests}

    return await in_time(app, [index], of)


@dataclass(frozen=True, slots=True)
class _SuggestionLookup:
    app: AppState
    generation: Generation
    typed: str
    asked: SuggestAddress

    async def found(self, clauses: Sequence[Clause] | None) -> SuggestionList:
        """Queries, at least half as many as were asked for if there are so many, and titles; each text once.

        With a filter no queries: others asked them, of documents that the filter may leave out.
        """
        rules = self.app.curations.of(self.generation)
        plans = {}
        if self.typed and self.generation.suggests:
            plans["title"] = self._titles_plan(clauses or (), rules)
        if clauses is None:
            plans["query"] = self._queries_plan()
        if not plans:
            return []
        settings = self.app.settings
        call = msearch_call(plans.values(), settings.search_timeout, near=self.app.near)
        answers = dict(zip(plans, (await self.app.search.send(call))["responses"], strict=True))
        titles = await self._titles(answers["title"], clauses or (), rules) if "title" in answers else []
        known = {fold_text(title["text"]) for title in titles}
        asked = [one for one in self._queries(answers.get("query")) if fold_text(one["text"]) not in known]
        size = self.asked.size
        asked = asked[: max(size // 2, size - len(titles))]
        return asked + titles[: size - len(asked)]

    def _titles_plan(self, clauses: Sequence[Clause], rules: CompiledRules | None, alike: int = 1) -> SearchPlan:
        """Twice as many where rules may hide some for their own title."""
        most, timeout = self.app.settings.max_query_pieces, self.app.settings.search_timeout
        hidden = () if rules is None else sorted(rules.matched(self.typed, most).hidden)
        size = self.asked.size if rules is None else 2 * self.asked.size
        physical, fuzzy = self.generation.physical, self.asked.fuzzy
        return title_suggestions_plan(physical, self.typed, size, clauses, hidden, timeout, fuzzy=fuzzy, alike=alike)

    async def _titles(
        self, answer: Mapping[str, Any], clauses: Sequence[Clause], rules: CompiledRules | None
    ) -> SuggestionList:
        """Titles of documents that a search for what was typed may show, and a search for the title itself too.

        Only when one is hidden for its title are others asked for that have the same: finding them costs five times a
        suggestion.
        """
        titles = complete_hits(answer, Stopwatch())
        if rules is not None and any(self._hides(rules, hit) for hit in titles):
            settings = self.app.settings
            plan = self._titles_plan(clauses, rules, 1 + rules.most_hidden)
            call = msearch_call([plan], settings.search_timeout, near=self.app.near)
            titles = complete_hits((await self.app.search.send(call))["responses"][0], Stopwatch())
        shown = (
            next((hit for hit in read_same_title_hits(one) if not self._hides(rules, hit)), None) for one in titles
        )
        found = [self._shown(hit["_source"]["title"], "title", hit["_id"]) for hit in shown if hit is not None]
        return found[: self.asked.size]

    def _hides(self, rules: CompiledRules | None, hit: Mapping[str, Any]) -> bool:
        most = self.app.settings.max_query_pieces
        return rules is not None and hit["_id"] in rules.matched(hit["_source"]["title"], most).hidden

    def _queries_plan(self) -> SearchPlan:
        settings = self.app.settings
        least, timeout = settings.suggest_after, settings.search_timeout
        names, size = self.app.names, 2 * self.asked.size
        return query_suggestions_plan(names, self.generation, self.typed, size, least, now_ms(), timeout)

    def _queries(self, answer: Mapping[str, Any] | None) -> SuggestionList:
        """None where they cannot be read: there may never have been any, and titles are worth having alone."""
        try:
            hits = [] if answer is None else complete_hits(answer, Stopwatch())
        except SparsewellError:
            return []
        return [self._shown(hit["_source"]["query"], "query") for hit in hits]

    def _shown(self, text: str, kind: str, document: str | None = None) -> dict[str, Any]:
        parts = [part._asdict() for part in locate_typed_words(text, self.typed)]
        return {"text": text, "kind": kind, "id": document, "typed": parts}
