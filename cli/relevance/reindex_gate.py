"""The quality gate of `sparsewell reindex`.

It runs the API's search stages over both generations with the same judged queries, and refuses the swap if NDCG@10
falls by more than the allowed loss.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.relevance.collection import Judgements, read_judgements, read_queries
from cli.relevance.metrics import Ranking, measure_rankings
from query_api.index_cache import CurationCache
from query_api.schemas.search_request import Mode, SearchRequest
from query_api.search.context import SearchContext
from query_api.search.curation import rules_of
from query_api.search.executor import DirectEngine, Stopwatch
from query_api.search.multi_index import common_score_by
from query_api.search.stages import encode_query, run_stages
from query_api.search.validation import parse_selection
from services.encoders.query_table import QueryTable
from services.errors import ConfigurationError, Conflict, InvalidInput
from services.index_spec import Generation, IndexNames
from services.opensearch.client import AsyncSearchClient
from services.opensearch.generations import refresh_call
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
        """Read DIR/queries.jsonl and DIR/qrels.tsv, as `sparsewell eval` reads them.

        Raises ConfigurationError (`collection_not_found`), InvalidInput (`malformed_collection`).
        """
        for name in ("queries.jsonl", "qrels.tsv"):
            if not (directory / name).is_file():
                raise ConfigurationError("collection_not_found", f"There is no file {directory / name}.")
        texts, judgements = read_queries(directory / "queries.jsonl"), read_judgements(directory / "qrels.tsv")
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
        engine = DirectEngine(search, _TIMEOUT_SECONDS, prefer_local=False)
        rankings: dict[str, dict[str, Ranking]] = {}
        for mode in MODES:
            rankings[mode] = {}
            for query, text in questions.texts.items():
                request = SearchRequest(query=text, mode=mode, passage=False, fields=[], learn=False)
                selection = parse_selection(request, generation.spec, settings)
                rules = await rules_of(curations, generation, request)
                vector, curated, origins = encode_query(generation, table, request, settings, rules)
                context = SearchContext(
                    generation, table, request, settings, engine, Stopwatch(), selection,
                    common_score_by(request, [generation.spec]), vector, origins=origins, curated=curated,
                )  # fmt: skip
                hits = (await run_stages([context])).hits
                # A pinned hit has its rank in spite of its score, so scores are made of ranks.
                rankings[mode][query] = [(hit.id, float(len(hits) - place)) for place, hit in enumerate(hits)]
        return rankings
    finally:
        await search.close()


def ndcg_by_mode(rankings: Mapping[str, Mapping[str, Ranking]], questions: JudgedQuestions) -> dict[str, float]:
    """Return NDCG@10 by mode."""
    return {
        mode: measure_rankings(questions.judgements, by_query).mean[GATE_METRIC] for mode, by_query in rankings.items()
    }


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


@dataclass
class GenerationBuild:
    """The steps of a command on the record of a reindex."""

    work: Reindexing
    settings: Settings
    known: list[KnownEncoder]
    show: LoadDisplay
    retry_seconds: float
    encode_here: bool = False

    def until_caught_up(self) -> ReindexProgress:
        """Build the new generation and follow the old one until it has caught up.

        Raises the errors of `Reindexing.follow_until_caught_up`, and Conflict (`misfits`).
        """
        self.work.make_target()
        with self._follower() as follower:
            self.show.begin("building", 1, unit="documents")
            progress = self.work.follow_until_caught_up(follower, self.retry_seconds, self._show)
        record = follower.record
        if record.misfits:
            raise Conflict(
                "misfits",
                f"{record.misfits:,} documents do not fit the new declaration (for example "
                f"{', '.join(record.misfit_ids[:3])}): `sparsewell generations abort {record.index}`, then change it.",
            )
        fresh_dead = progress.new["dead"] - progress.old["dead"]
        if fresh_dead > 0:
            self.show.say(f"{fresh_dead:,} more documents are dead in the new generation than in the old one.")
        return progress

    def gate(self, gate: QualityGate) -> None:
        """Compare both generations on the judged queries. Raises Conflict (`quality_gate`)."""
        record = self.work.current_record
        figures = []
        for generation in (record.source, record.target):
            table = QueryTable.load(self.encoder_of(generation).directory)
            rankings = rank_questions(self.settings, generation, table, gate.questions)
            figures.append(ndcg_by_mode(rankings, gate.questions))
        old, new = figures
        for mode in MODES:
            self.show.say(f"NDCG@10 {mode}: {old[mode]:.4f} -> {new[mode]:.4f}")
        require_quality(record.index, old, new, gate.modes, gate.max_loss)

    def require_table(self, api: str | None) -> None:
        """Check that the API has the query table of the new generation. Raises EncoderMismatch, BackendUnavailable."""
        wanted = self.work.current_record.target.encoder
        base = api_address(self.settings, api)
        with connect_api(base, 10) as client:
            try:
                served = read_json_response(client.get("/v1/encoders", headers=admin_headers(self.settings)))
            except httpx.HTTPError as error:
                raise unreachable(base, error) from None
        if wanted.fingerprint not in {encoder["fingerprint"] for encoder in served["encoders"]}:
            raise EncoderMismatch(
                "encoder_not_served",
                f"The API at {base} has no query table for {wanted.name} ({wanted.fingerprint}): add its model "
                "directory to SPARSEWELL_MORE_ENCODERS, restart the API, then repeat this command.",
            )

    def swap(self) -> None:
        """Record the decision, swap the alias, and copy the last changes of the old generation."""
        with self._follower() as follower:
            self.work.swap(follower)

    def encoder_of(self, generation: Generation) -> KnownEncoder:
        """Return the encoder of a generation. Raises ConfigurationError (`unknown_encoder`)."""
        return find_by_fingerprint(self.known, generation)

    @contextmanager
    def _follower(self) -> Iterator[Follower]:
        target = self.work.current_record.target
        with closing(Publisher(self.settings.redis_address)) as publisher:
            if self.encode_here:
                dispatch = self._local_dispatch(target)
            else:
                dispatch = make_queue_dispatch(publisher, self.settings, target)
            yield self.work.follower(dispatch, self.retry_seconds)

    def _local_dispatch(self, target: Generation) -> Dispatch:
        from indexer.runtime import Runtime, WorkerSettings

        directory = self.encoder_of(target).directory
        settings = self.settings.model_copy(update={"encoder": str(directory)})
        return make_local_dispatch(Runtime(settings, WorkerSettings.read()), target)

    def _show(self, progress: ReindexProgress) -> None:
        new = progress.new
        done = new["encoded"] + new["dead"] + new["deleted"]
        self.show.step(done, max(1, done + new["pending"] + progress.behind), done)


def find_by_fingerprint(known: Sequence[KnownEncoder], generation: Generation) -> KnownEncoder:
    """Return the encoder of a generation. Raises ConfigurationError (`unknown_encoder`)."""
    wanted = generation.encoder
    for encoder in known:
        if encoder.manifest.fingerprint == wanted.fingerprint:
            return encoder
    raise ConfigurationError(
        "unknown_encoder",
        f"No model directory of the encoder {wanted.name} ({wanted.fingerprint}) is known: give it with --encoder or "
        "in SPARSEWELL_MORE_ENCODERS.",
    )
    for mode in MODES:
        report(f"NDCG@10 {mode}: {before[mode]:.4f} -> {after[mode]:.4f}")
    require_quality(new[0].index, before, after, gate.modes, gate.max_loss)
