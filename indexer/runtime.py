"""The state of a worker process: its settings, its models, its clients and cached generations.

`WorkerSettings` are the settings of workers only; `services.settings` has those that all processes share. `Runtime`
loads the encoder, dense encoders and chapter engines when a task first needs them.
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
from services.queue.installation import InstallationClaim
from services.queue.messages import Publisher
from services.settings import EnvironmentSettings, Settings, renamed_alias

log = logging.getLogger(__name__)

# The process notices a swapped alias or a deleted index after this time.
GENERATION_CACHE_SECONDS = 2.0
LOG_REPEAT_SECONDS = 60.0
FAILURE_CACHE_SECONDS = 600.0

LoadEncoder = Callable[[Settings], Encoder]
LoadChapterMaker = Callable[[Settings, str, Encoder], ChapterMaker]
LoadDense = Callable[[Settings, DenseIdentity], DenseModel]


class WorkerSettings(EnvironmentSettings):
    """The times of a worker, in seconds, read from the environment (prefix `SPARSEWELL_`).

    A task starts no further run at `task_budget`, its process is killed at `task_limit`, and an unacknowledged message
    is delivered again after `redelivery`. `redelivery` must be far above the limit, or a long task would run twice at
    once.
    """

    task_budget: float = Field(30.0, gt=0)
    task_limit: float = Field(300.0, gt=0)
    redelivery: float = Field(1200.0, gt=0)
    chapter_seconds: float = Field(
        120.0, gt=0, description="time for the chapters of one talk, at most half of `task_limit`"
    )
    retry_seconds: float = Field(
        60.0,
        gt=0,
        validation_alias=renamed_alias("RETRY_SECONDS", "PATIENCE"),
        description="how long a task waits for an OpenSearch that is down or overloaded",
    )
    soft_shutdown: float = Field(20.0, ge=0, description="time for running tasks after SIGQUIT; SIGTERM waits for them")
    redis_wait: float = Field(30.0, ge=0, description="how long a starting worker waits for Redis before it gives up")

    @property
    def chapter_time(self) -> float:
        """The seconds for the chapters of one talk. The rest of the task's time is for encoding the talk."""
        return min(self.chapter_seconds, self.task_limit / 2)

    def model_post_init(self, _context: object) -> None:
        """Check that the times fit together. Raises ValueError."""
        if self.task_limit < 2 * self.task_budget:
            raise ValueError("SPARSEWELL_TASK_LIMIT must be at least twice SPARSEWELL_TASK_BUDGET")
        if self.redelivery < 2 * self.task_limit:
            raise ValueError("SPARSEWELL_REDELIVERY must be at least twice SPARSEWELL_TASK_LIMIT")


def load_configured_encoder(settings: Settings) -> Encoder:
    """Load the configured encoder with the configured threads and batch size."""
    from models.registry import load_encoder

    return load_encoder(settings.encoder, threads=settings.worker_threads, batch_pieces=settings.batch_pieces)


def load_dense_model(settings: Settings, identity: DenseIdentity) -> DenseModel:
    """Load the dense encoder of an index; download it once if that is possible.

    Raises ConfigurationError, EncoderMismatch (`dense_mismatch`).
    """
    from models.dense import load_dense_encoder
    from services.directories import DirectorySettings, resolve_cache_directory
    from services.encoders.catalogue import list_dense_encoders

    known = list_dense_encoders(settings).get(identity.name)
    if known is None or known.identity.fingerprint != identity.fingerprint:
        raise EncoderMismatch(
            "dense_mismatch",
            f"This worker has no dense encoder {identity.name} ({identity.fingerprint}): name its directory in "
            "SPARSEWELL_DENSE_ENCODERS.",
        )
    return load_dense_encoder(
        known, resolve_cache_directory(DirectorySettings.read()), log.info, threads=settings.worker_threads
    )


def load_chapter_maker(settings: Settings, engine: str, encoder: Encoder) -> ChapterMaker:
    """Load a chapter engine by name. Raises ConfigurationError when it is not available."""
    from models.chapters.maker import EngineChapterMaker, open_chapter_engine

    opened = open_chapter_engine(engine, encoder, settings.chapter_model, threads=settings.worker_threads)
    return EngineChapterMaker(opened)


class Runtime:
    """The models, clients and caches of a worker process.

    The parent creates it, and each child fills it at its first task: no client and no model session survives a fork.
    """

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
        self._maker_failures: dict[str, tuple[float, Exception]] = {}
        self._dense: dict[str, DenseModel] = {}
        self._jobs_index_created = False
        self._logged_at: dict[str, float] = {}
        self._generations: dict[tuple[str, int | None], tuple[float, Generation]] = {}

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder, loaded at the first use."""
        return self._load(self.settings)

    def is_joint(self, generation: Generation) -> bool:
        """Return whether one pass of the encoder gives both the sparse and the dense vectors of a generation."""
        return generation.dense is not None and generation.dense.fingerprint == self.encoder.fingerprint

    def dense(self, generation: Generation) -> DenseModel | None:
        """Return the dense encoder of a generation; None when it declares none, or when its encoder `is_joint`.

        Raises EncoderMismatch when this worker cannot load it. The documents then wait: without their dense vectors
        they would rank lower, and no error would show it.
        """
        identity = generation.dense
        if identity is None or self.is_joint(generation):
            return None
        if identity.fingerprint not in self._dense:
            try:
                self._dense[identity.fingerprint] = self._load_dense(self.settings, identity)
            except ConfigurationError as error:
                raise EncoderMismatch(error.code, error.detail) from error
        return self._dense[identity.fingerprint]

    def maker(self, engine: str) -> ChapterMaker:
        """Return the maker of chapters with an engine, loaded at the first use.

        Raises the error of loading it. The error is cached for ten minutes, because another try may be a download
        that each talk would wait for.
        """
        if engine not in self._makers:
            failed_at, error = self._maker_failures.get(engine, (-FAILURE_CACHE_SECONDS, None))
            if error is not None and time.monotonic() - failed_at < FAILURE_CACHE_SECONDS:
                raise error
            try:
                self._makers[engine] = self._load_maker(self.settings, engine, self.encoder)
            except Exception as failure:
                self._maker_failures[engine] = time.monotonic(), failure
                raise
        return self._makers[engine]

    @cached_property
    def search(self) -> SyncSearchClient:
        """The client of OpenSearch."""
        return SyncSearchClient(self.settings)

    @cached_property
    def claim(self) -> InstallationClaim:
        return InstallationClaim(self.settings, self.publisher)

    @cached_property
    def publisher(self) -> Publisher:
        """The publisher of messages for other tasks."""
        return Publisher(self.settings.redis_address)

    def generation(self, index: str, number: int | None = None) -> Generation:
        """Return an index's generation by number; None is the generation that the alias points to.

        Raises NotFound (`index_not_found`) and InvalidInput (`invalid_index_name`).
        """
        cached = self._generations.get((index, number))
        now = time.monotonic()
        if cached is not None and now - cached[0] < GENERATION_CACHE_SECONDS:
            return cached[1]
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

    def written_generation(self, index: str, physical: str) -> Generation:
        """Return the generation that received a write through the alias, after a swap that the cache missed.

        Raises NotFound (`index_not_found`) when it was deleted since.
        """
        self.forget(index)
        return read_generation(self.search.send(generation_call(physical)), index)

    def forget(self, index: str, number: int | None = None) -> None:
        """Drop a generation from the cache, so that the next message asks OpenSearch."""
        self._generations.pop((index, number), None)

    def should_log(self, message: str) -> bool:
        """Return whether a message was not logged in the last minute. A long queue must not repeat the same error."""
        now = time.monotonic()
        if now - self._logged_at.get(message, -LOG_REPEAT_SECONDS) < LOG_REPEAT_SECONDS:
            return False
        self._logged_at[message] = now
        return True

    def check_encoder(self, generation: Generation) -> None:
        """Check that this worker's encoder is the generation's. Raises EncoderMismatch (`encoder_mismatch`)."""
        if generation.encoder.fingerprint != self.encoder.fingerprint:
            raise EncoderMismatch(
                "encoder_mismatch",
                f"The index {generation.index!r} needs vectors of {generation.encoder.name} "
                f"({generation.encoder.fingerprint}), but this worker holds {self.encoder.manifest.name} "
                f"({self.encoder.fingerprint}): start a worker with that model directory (SPARSEWELL_ENCODER).",
            )

    def create_jobs_index(self) -> None:
        """Create the index of jobs once, so that OpenSearch does not create it with a dynamic mapping."""
        if self._jobs_index_created:
            return
        with suppress(Conflict):
            self.search.send(create_jobs_call(self.names, self.settings))
        self._jobs_index_created = True
