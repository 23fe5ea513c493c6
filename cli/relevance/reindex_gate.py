"""The quality gate of `sparsewell reindex`.

It runs the API's search stages over both generations with the same judged queries, and refuses the swap if NDCG@10
falls by more than the allowed loss.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.relevance.metrics import Ranking, RankingQuality, measure_rankings
from cli.relevance.runs import by_query, describe_comparison
from models.judged_collection import Judgements, find_judgements, read_judgements, read_queries
from models.significance import compare_rankings
from query_api.index_cache import CurationCache
from query_api.schemas.search_request import Mode, SearchRequest
from query_api.search.executor import DirectExecutor, Stopwatch
from query_api.search.multi_index import common_score_by
from query_api.search.stages import build_context, run_stages
from services.encoders.query_table import QueryTable
from services.errors import Conflict, InvalidInput
from services.index_spec import Generation, IndexNames
from services.opensearch.client import AsyncSearchClient
from services.opensearch.frequency_records import read_records, read_records_call
from services.opensearch.generations import generation_call, read_generations, refresh_call
from services.settings import Settings

GATE_METRIC = "ndcg@10"
MODES: Final[tuple[Mode, ...]] = ("sparse", "lexical", "hybrid")
# Limit of a search of the gate, longer than the API's: no user waits for it.
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class JudgedQuestions:
    """Judged queries: texts by id, and grades by query and document."""

    texts: dict[str, str]
    judgements: Judgements

    @classmethod
    def read(cls, directory: Path) -> "JudgedQuestions":
        """Read DIR/queries.jsonl and the judgements in DIR, as `sparsewell eval` reads them.

        Raises ConfigurationError (`collection_not_found`), InvalidInput (`malformed_collection`).
        """
        texts = read_queries(directory / "queries.jsonl")
        judgements = read_judgements(find_judgements(directory))
        judged = {query: grades for query, grades in judgements.items() if texts.get(query, "").strip()}
        if not judged:
            raise InvalidInput("malformed_collection", f"No judgement in {directory} is about one of its queries.")
        return cls({query: texts[query] for query in judged}, judged)


@dataclass(frozen=True, slots=True)
class QualityGate:
    """Judged queries, the modes to check, and the loss of NDCG@10 that is allowed."""

    questions: JudgedQuestions
    modes: Sequence[str]
    max_loss: float


def rank_questions(
    settings: Settings, generation: Generation, table: QueryTable, questions: JudgedQuestions
) -> dict[str, dict[str, Ranking]]:
    """Return rankings of a generation by mode and query, searched as the API searches it.

    The search stages of the API run with the settings of this process, with pruning, curation rules and fusion. Raises
    BackendUnavailable (`search_incomplete`) for an incomplete list, and the errors of a search.
    """
    return asyncio.run(_rank_questions(settings, generation, table, questions))


async def _rank_questions(
    settings: Settings, generation: Generation, table: QueryTable, questions: JudgedQuestions
) -> dict[str, dict[str, Ranking]]:
    settings = settings.model_copy(update={"search_timeout": _TIMEOUT_SECONDS})
    search = AsyncSearchClient(settings)
    try:
        await search.send(refresh_call(generation.physical))
        curations = CurationCache(search, IndexNames(settings.index_prefix), _TIMEOUT_SECONDS)
        curations.remember(generation, await curations.read(generation.index, prefer_local=False))
        table = await _adapt(search, IndexNames(settings.index_prefix), generation, table)
        executor = DirectExecutor(search, _TIMEOUT_SECONDS, prefer_local=False)
        rankings: dict[str, dict[str, Ranking]] = {}
        for mode in MODES:
            rankings[mode] = {}
            for query, text in questions.texts.items():
                request = SearchRequest(query=text, mode=mode, passage=False, fields=[], learn=False)
                score_by = common_score_by(request, [generation.spec])
                context = await build_context(
                    generation, table, request, settings, executor, Stopwatch(), score_by, curations
                )
                hits = (await run_stages([context])).hits
                # A pinned hit has its rank in spite of its score, so scores are made of ranks.
                rankings[mode][query] = [(hit.id, float(len(hits) - place)) for place, hit in enumerate(hits)]
        return rankings
    finally:
        await search.close()


async def _adapt(search: AsyncSearchClient, names: IndexNames, generation: Generation, table: QueryTable) -> QueryTable:
    """Return the table adapted to the newest piece frequencies of a generation, as the API adapts it."""
    newest = read_generations(await search.send(generation_call(generation.physical)))
    if not newest or not newest[0].frequencies or not newest[0].spec.adapt_weights:
        return table
    (record,) = read_records(await search.send(read_records_call(names, newest, counts=True)))
    return table if record is None or record.frequencies is None else table.adapt(record.frequencies)


def measure_modes(
    rankings: Mapping[str, Mapping[str, Ranking]], questions: JudgedQuestions
) -> dict[str, RankingQuality]:
    """Return the figures by mode."""
    return {mode: measure_rankings(questions.judgements, by_query) for mode, by_query in rankings.items()}


def degraded_modes(
    old: Mapping[str, float], new: Mapping[str, float], modes: Iterable[str], max_loss: float
) -> list[str]:
    """Return the modes in which the new generation loses more than `max_loss`."""
    return [mode for mode in modes if new[mode] < old[mode] - max_loss]


def require_quality(
    index: str, old: Mapping[str, float], new: Mapping[str, float], modes: Iterable[str], max_loss: float
) -> None:
    """Raise Conflict (`quality_gate`) if the new generation loses more than `max_loss` in one of `modes`."""
    failing = degraded_modes(old, new, modes, max_loss)
    if failing:
        figures = ", ".join(f"{mode} {old[mode]:.4f} -> {new[mode]:.4f}" for mode in failing)
        raise Conflict(
            "quality_gate",
            f"Not swapped: NDCG@10 falls by more than {max_loss:g} ({figures}). The old generation is still searched. "
            f"`sparsewell generations abort {index}` deletes the new one; a larger --max-loss accepts it.",
        )


def compare_generations(
    settings: Settings,
    gate: QualityGate,
    old: tuple[Generation, QueryTable],
    new: tuple[Generation, QueryTable],
    report: Callable[[str], None],
) -> None:
    """Search both generations with the judged queries and report NDCG@10, and whether the change is beyond chance.

    Raises Conflict (`quality_gate`).
    """
    before, after = (
        measure_modes(rank_questions(settings, generation, table, gate.questions), gate.questions)
        for generation, table in (old, new)
    )
    old_means = {mode: quality.mean[GATE_METRIC] for mode, quality in before.items()}
    new_means = {mode: quality.mean[GATE_METRIC] for mode, quality in after.items()}
    for mode in MODES:
        change = compare_rankings(by_query(before[mode], GATE_METRIC), by_query(after[mode], GATE_METRIC))
        report(f"NDCG@10 {mode}: {old_means[mode]:.4f} -> {new_means[mode]:.4f}")
        report(f"  {describe_comparison(change, GATE_METRIC)}")
    require_quality(new[0].index, old_means, new_means, gate.modes, gate.max_loss)
