"""Carries, waits, compares and swaps for a reindexing whose record exists, and tells how it goes."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import httpx

from cli.api_answers import admin_headers, api_address, away, connect
from cli.loading.display import Display
from cli.reindexing.gate import MODES, Questions, hold, quality, ranked
from indexer.reindex.dispatch import here, through_queue
from indexer.reindex.follower import Dispatch, Follower
from indexer.reindex.run import Progress, Reindexing
from services.errors import ConfigurationError, Conflict, EncoderMismatch
from services.index_spec import Generation
from services.known_encoders import KnownEncoder, known_encoders
from services.query_table import QueryTable
from services.queue import Publisher
from services.settings import Settings
from services.web.answers import read_answer


@dataclass(frozen=True, slots=True)
class Gate:
    """Judged questions, the modes that must not lose, and how much of NDCG@10 they may lose."""

    questions: Questions
    modes: Sequence[str]
    most: float


@dataclass
class Build:
    """One command's work on a record."""

    work: Reindexing
    settings: Settings
    known: list[KnownEncoder]
    show: Display
    patience: float
    encode_here: bool = False

    def until_settled(self) -> Progress:
        """Makes the new generation and follows until it has caught up. Raises what `Reindexing.settle` raises."""
        self.work.make_target()
        with self._follower() as follower:
            self.show.begin("building", 1, unit="documents")
            progress = self.work.settle(follower, self.patience, self._tell)
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

    def gate(self, gate: Gate) -> None:
        """Both generations answer the questions. Raises Conflict (`quality_gate`)."""
        record = self.work.held
        figures = []
        for generation in (record.source, record.target):
            table = QueryTable.load(self.encoder_of(generation).directory)
            found = ranked(self.settings, generation, table, gate.questions)
            figures.append(quality(found, gate.questions))
        old, new = figures
        for mode in MODES:
            self.show.say(f"NDCG@10 {mode}: {old[mode]:.4f} -> {new[mode]:.4f}")
        hold(record.index, old, new, gate.modes, gate.most)

    def require_table(self, api: str | None) -> None:
        """Asks the API whether it can serve the new generation. Raises EncoderMismatch, BackendUnavailable."""
        wanted = self.work.held.target.encoder
        base = api_address(self.settings, api)
        with connect(base, 10) as client:
            try:
                served = read_answer(client.get("/v1/encoders", headers=admin_headers(self.settings)))
            except httpx.HTTPError as error:
                raise away(base, error) from None
        if wanted.fingerprint not in {one["fingerprint"] for one in served["encoders"]}:
            raise EncoderMismatch(
                "encoder_not_served",
                f"The API at {base} has no query table for {wanted.name} ({wanted.fingerprint}): start it with "
                "SPARSEWELL_MORE_ENCODERS naming that model directory, then run this command again.",
            )

    def swap(self) -> None:
        """Decides, swaps, and carries what was written to the old generation last."""
        with self._follower() as follower:
            self.work.swap(follower)

    def encoder_of(self, generation: Generation) -> KnownEncoder:
        """The model directory of a generation's encoder. Raises ConfigurationError (`unknown_encoder`)."""
        return by_fingerprint(self.known, generation)

    @contextmanager
    def _follower(self) -> Iterator[Follower]:
        target = self.work.held.target
        with closing(Publisher(self.settings.redis_address)) as publisher:
            dispatch = self._here(target) if self.encode_here else through_queue(publisher, self.settings, target)
            yield self.work.follower(dispatch, self.patience)

    def _here(self, target: Generation) -> Dispatch:
        from indexer.runtime import Runtime
        from indexer.settings import WorkerSettings

        directory = self.encoder_of(target).directory
        settings = self.settings.model_copy(update={"encoder": str(directory)})
        return here(Runtime(settings, WorkerSettings.read()), target)

    def _tell(self, progress: Progress) -> None:
        new = progress.new
        done = new["encoded"] + new["dead"] + new["deleted"]
        self.show.step(done, max(1, done + new["pending"] + progress.behind), done)


def by_fingerprint(known: Sequence[KnownEncoder], generation: Generation) -> KnownEncoder:
    """The known encoder of a generation. Raises ConfigurationError (`unknown_encoder`)."""
    wanted = generation.encoder
    for one in known:
        if one.manifest.fingerprint == wanted.fingerprint:
            return one
    raise ConfigurationError(
        "unknown_encoder",
        f"No model directory here is {wanted.name} ({wanted.fingerprint}): name it with --encoder or in "
        "SPARSEWELL_MORE_ENCODERS.",
    )


def known_with(settings: Settings, encoder: str | None) -> list[KnownEncoder]:
    """The known encoders, with the one that was named on the command line."""
    return known_encoders(settings, *([encoder] if encoder else []))
