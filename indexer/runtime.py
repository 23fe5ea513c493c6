"""What a worker process holds: its encoder, dense ones that indexes ask for, clients, and what it knows of indexes.

Settings of workers alone; what they share with the other processes is in `services.settings`.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property

from pydantic import Field

from indexer.encoding import ChapterMaker
from models.dense import DenseModel
from models.encoder import Encoder
from services.documents.document import VersionClock
from services.encoders.manifest import DenseIdentity
from services.errors import ConfigurationError, Conflict, EncoderMismatch, NotFound
from services.index_spec import Generation, IndexNames
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import (
    create_jobs_call,
    generation_call,
    index_not_found,
    read_generation,
    resolve_alias_call,
)
from services.queue.messages import Publisher
from services.settings import EnvironmentSettings, Settings


class WorkerSettings(EnvironmentSettings):
    """Times of a worker, in seconds, read from the environment (prefix `SPARSEWELL_`) when a factory asks.

    They build on each other: a task stops taking new documents at `task_budget`, its process is killed at `task_limit`,
    and a message that nobody acknowledged is delivered again after `redelivery`, which must be far above the limit, or
    a long task would run twice at once.
    """

    task_budget: float = Field(30.0, gt=0)
    task_limit: float = Field(300.0, gt=0)
    redelivery: float = Field(1200.0, gt=0)
    chapter_seconds: float = Field(
        120.0, gt=0, description="time for the chapters of one talk, at most half of `task_limit`"
    )
    patience: float = Field(
        60.0, gt=0, description="how long a task waits for an OpenSearch that is down or overloaded"
    )
    soft_shutdown: float = Field(20.0, ge=0, description="time for running tasks after SIGQUIT; SIGTERM waits for them")
    redis_wait: float = Field(30.0, ge=0, description="how long a starting worker waits for Redis before it gives up")

    @property
    def chapter_time(self) -> float:
        """Seconds for the chapters of one talk: the rest of the task's is for encoding it."""
        return min(self.chapter_seconds, self.task_limit / 2)

    def model_post_init(self, _context: object) -> None:
        if self.task_limit < 2 * self.task_budget:
            raise ValueError("SPARSEWELL_TASK_LIMIT must be at least twice SPARSEWELL_TASK_BUDGET")
        if self.redelivery < 2 * self.task_limit:
            raise ValueError("SPARSEWELL_REDELIVERY must be at least twice SPARSEWELL_TASK_LIMIT")


log = logging.getLogger(__name__)

# A swapped alias or a deleted index is noticed after this long.
GENERATION_CACHE_SECONDS = 2.0
LOG_REPEAT_SECONDS = 60.0
FAILURE_CACHE_SECONDS = 600.0

LoadEncoder = Callable[[Settings], Encoder]
LoadChapterMaker = Callable[[Settings, str, Encoder], ChapterMaker]
LoadDense = Callable[[Settings, DenseIdentity], DenseModel]


def load_configured_encoder(settings: Settings) -> Encoder:
    """The encoder of the settings, with their threads and batches."""
    from models.registry import load_encoder

    # The encoder knows its best size; a size that was asked for is another matter.
    return load_encoder(settings.encoder, threads=settings.worker_threads, batch_pieces=settings.batch_pieces)


def load_dense_model(settings: Settings, identity: DenseIdentity) -> DenseModel:
    """The dense encoder of an index; one that can be fetched is, once. Raises ConfigurationError, EncoderMismatch."""
    from models.dense import load_dense_encoder
    from services.directories import DirectorySettings, resolve_cache_directory
    from services.encoders.catalogue import list_dense_encoders

    known = list_dense_encoders(settings).get(identity.name)
    if known is None or known.identity.fingerprint != identity.fingerprint:
        raise EncoderMismatch(
            "dense_mismatch",
            f"No dense encoder here is {identity.name} ({identity.fingerprint}): name its directory in "
            "SPARSEWELL_DENSE_ENCODERS.",
        )
    return load_dense_encoder(
        known, resolve_cache_directory(DirectorySettings.read()), log.info, threads=settings.worker_threads
    )


def load_chapter_maker(settings: Settings, engine: str, encoder: Encoder) -> ChapterMaker:
    """The engine of that name, with its chapters checked. Raises ConfigurationError for one that cannot be had."""
    from models.chapters.maker import ChapterMaker, open_chapter_engine

    return ChapterMaker(open_chapter_engine(engine, encoder, settings.chapter_model, threads=settings.worker_threads))


class Runtime:
    """Made in the parent, filled in each child when its first task asks: no client and no session crosses a fork."""

    def __init__(
        self,
        settings: Settings,
        worker: WorkerSettings,
        load: LoadEncoder = load_configured_encoder,
        load_dense: LoadDense = load_dense_model,
        load_maker: LoadChapterMaker = load_chapter_maker,
    ) -> None:
        self.settings = settings
        self.worker = worker
        self.names = IndexNames(settings.index_prefix)
        self.clock = VersionClock()
        self._load = load
        self._load_dense = load_dense
        self._load_maker = load_maker
        self._makers: dict[str, ChapterMaker] = {}
        self._unopened: dict[str, tuple[float, Exception]] = {}
        self._dense: dict[str, DenseModel] = {}
        self._jobs_made = False
        self._said: dict[str, float] = {}
        self._generations: dict[tuple[str, int | None], tuple[float, Generation]] = {}

    @cached_property
    def encoder(self) -> Encoder:
        return self._load(self.settings)

    def dense(self, generation: Generation) -> DenseModel | None:
        """The dense encoder of a generation, None where it declares none.

        Raises EncoderMismatch when this worker cannot have it: its documents wait, rather than get into the index
        without a vector that nobody would miss.
        """
        identity = generation.dense
        if identity is None:
            return None
        if identity.fingerprint not in self._dense:
            try:
                self._dense[identity.fingerprint] = self._load_dense(self.settings, identity)
            except ConfigurationError as error:
                raise EncoderMismatch(error.code, error.detail) from error
        return self._dense[identity.fingerprint]

    def maker(self, engine: str) -> ChapterMaker:
        """What makes the chapters of talk, opened once. Raises whatever opening it does; ten minutes long without
        another try, which may be a download that each talk would wait for.
        """
        if engine not in self._makers:
            when, error = self._unopened.get(engine, (-FAILURE_CACHE_SECONDS, None))
            if error is not None and time.monotonic() - when < FAILURE_CACHE_SECONDS:
                raise error
            try:
                self._makers[engine] = self._load_maker(self.settings, engine, self.encoder)
            except Exception as failure:
                self._unopened[engine] = time.monotonic(), failure
                raise
        return self._makers[engine]

    @cached_property
    def search(self) -> SyncSearchClient:
        return SyncSearchClient(self.settings)

    @cached_property
    def publisher(self) -> Publisher:
        return Publisher(self.settings.redis_address)

    def generation(self, index: str, number: int | None = None) -> Generation:
        """The generation of that number, None: the one that the alias points to.

        Raises NotFound (`index_not_found`) and InvalidInput (`invalid_index_name`).
        """
        remembered = self._generations.get((index, number))
        now = time.monotonic()
        if remembered is not None and now - remembered[0] < GENERATION_CACHE_SECONDS:
            return remembered[1]
        call = resolve_alias_call(self.names, index)
        if number is not None:
            call = Call(call.method, f"/{self.names.physical(index, number)}/_mapping", params=call.params)
        try:
            generation = read_generation(self.search.send(call), index)
        except NotFound:
            self.forget(index, number)
            raise index_not_found(index) from None
        self._generations[index, number] = (now, generation)
        return generation

    def taker(self, index: str, physical: str) -> Generation:
        """The generation that took a write through the index's alias, another than the writer knew.

        Raises NotFound (`index_not_found`) when it was deleted since.
        """
        self.forget(index)
        return read_generation(self.search.send(generation_call(physical)), index)

    def forget(self, index: str, number: int | None = None) -> None:
        """The next message asks OpenSearch again."""
        self._generations.pop((index, number), None)

    def new_trouble(self, trouble: str) -> bool:
        """Whether this was not said in the last minute: a full queue does not fill the log with one sentence."""
        now = time.monotonic()
        if now - self._said.get(trouble, -LOG_REPEAT_SECONDS) < LOG_REPEAT_SECONDS:
            return False
        self._said[trouble] = now
        return True

    def check_encoder(self, generation: Generation) -> None:
        """Raises EncoderMismatch (`encoder_mismatch`) unless the generation wants this process's very encoder."""
        if generation.encoder.fingerprint != self.encoder.fingerprint:
            raise EncoderMismatch(
                "encoder_mismatch",
                f"The index {generation.index!r} wants vectors of {generation.encoder.name} "
                f"({generation.encoder.fingerprint}), and this worker holds {self.encoder.manifest.name} "
                f"({self.encoder.fingerprint}): start a worker with that model directory (SPARSEWELL_ENCODER).",
            )

    def make_jobs_index(self) -> None:
        """Makes the index of jobs once, so that OpenSearch does not invent a mapping for it."""
        if self._jobs_made:
            return
        with suppress(Conflict):
            self.search.send(create_jobs_call(self.names, self.settings))
        self._jobs_made = True
