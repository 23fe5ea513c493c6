"""The quality gate of a reindex: both generations answer the same judged questions before the new one is swapped in."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.relevance.collection import Judgements, read_judgements, read_queries
from cli.relevance.metrics import Ranking, measure
from query_api.curations import Curations
from query_api.search.context import SearchContext
from query_api.search.curation import rules_of
from query_api.search.engine import Direct
from query_api.search.multi_index import common_score_by
from query_api.search.request import Mode, SearchRequest
from query_api.search.selection import selection
from query_api.search.stages import run_stages, with_query
from query_api.search.stopwatch import Stopwatch
from services.errors import ConfigurationError, Conflict, InvalidInput
from services.index_spec import Generation, Names
from services.opensearch.client import AsyncSearch
from services.opensearch.generations import refresh_call
from services.query_table import QueryTable
from services.settings import Settings

METRIC = "ndcg@10"
MODES: Final[tuple[Mode, ...]] = ("sparse", "lexical", "hybrid")
# Of one search: nobody waits for a page.
_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Questions:
    """Judged queries: texts by id, and grades by query and document."""

    texts: dict[str, str]
    judgements: Judgements

    @classmethod
    def read(cls, directory: Path) -> "Questions":
        """Read DIR/queries.jsonl and DIR/qrels.tsv, as `sparsewell eval` reads them.

        Raises ConfigurationError (`collection_not_found`), InvalidInput (`malformed_collection`).
        """
        for name in ("queries.jsonl", "qrels.tsv"):
            if not (directory / name).is_file():
                raise ConfigurationError("collection_not_found", f"There is no file {directory / name}.")
        texts, judgements = read_queries(directory / "queries.jsonl"), read_judgements(directory / "qrels.tsv")
        judged = {query: grades for query, grades in judgements.items() if texts.get(query, "").strip()}
        if not judged:
            raise InvalidInput("malformed_collection", f"No judgement in {directory} is about a query that it has.")
        return cls({query: texts[query] for query in judged}, judged)


def ranked(
    settings: Settings, generation: Generation, table: QueryTable, questions: Questions
) -> dict[str, dict[str, Ranking]]:
    """Return rankings by mode and query of one generation, searched by its own name as the API searches it.

    The API's own stages run with the settings of this process: pruning, curation rules, fusion and all. Raises
    BackendUnavailable (`search_incomplete`) for a list that is cut short, and what a search raises.
    """
    return asyncio.run(_ranked(settings, generation, table, questions))


async def _ranked(
    settings: Settings, generation: Generation, table: QueryTable, questions: Questions
) -> dict[str, dict[str, Ranking]]:
    settings = settings.model_copy(update={"search_timeout": _SECONDS})
    search = AsyncSearch(settings)
    try:
        await search.send(refresh_call(generation.physical))
        curations = Curations(search, Names(settings.index_prefix), _SECONDS)
        curations.remember(generation, await curations.read(generation.index, near=False))
        engine = Direct(search, _SECONDS, near=False)
        found: dict[str, dict[str, Ranking]] = {}
        for mode in MODES:
            found[mode] = {}
            for query, text in questions.texts.items():
                request = SearchRequest(query=text, mode=mode, passage=False, fields=[], learn=False)
                context = SearchContext(
                    generation, table, request, settings, engine, Stopwatch(),
                    selection(request, generation.spec, settings), common_score_by(request, [generation.spec]),
                )  # fmt: skip
                rules = await rules_of(curations, generation, request)
                outcome = await run_stages([with_query(context, rules)])
                hits = outcome.retrieved.hits
                # a pinned hit keeps its place whatever its score is, so places are measured
                found[mode][query] = [(hit.id, float(len(hits) - place)) for place, hit in enumerate(hits)]
        return found
    finally:
        await search.close()


def quality(rankings: Mapping[str, Mapping[str, Ranking]], questions: Questions) -> dict[str, float]:
    """Return NDCG@10 by mode."""
    return {mode: measure(questions.judgements, found).mean[METRIC] for mode, found in rankings.items()}


def worse(old: Mapping[str, float], new: Mapping[str, float], modes: Iterable[str], most: float) -> list[str]:
    """Return the modes in which the new generation loses more than `most`."""
    return [mode for mode in modes if new[mode] < old[mode] - most]


def hold(index: str, old: Mapping[str, float], new: Mapping[str, float], modes: Iterable[str], most: float) -> None:
    """Raise Conflict (`quality_gate`) when the new generation is worse by more than `most` in one of `modes`."""
    failing = worse(old, new, modes, most)
    if failing:
        figures = ", ".join(f"{mode} {old[mode]:.4f} -> {new[mode]:.4f}" for mode in failing)
        raise Conflict(
            "quality_gate",
            f"Not swapped: NDCG@10 falls by more than {most:g} ({figures}). The old generation goes on; "
            f"`sparsewell generations abort {index}` removes the new one, a larger --max-loss accepts it.",
        )
