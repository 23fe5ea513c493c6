"""What a worker process holds: its encoder, dense ones that indexes ask for, clients, and what it knows of indexes."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property

from indexer.chaptering import Maker
from indexer.settings import WorkerSettings
from models.dense.model import DenseModel
from models.encoder import Encoder
from services.dense_form import DenseIdentity
from services.errors import ConfigurationError, Conflict, EncoderMismatch, NotFound
from services.index_spec import Generation, Names
from services.opensearch.client import Call, SyncSearch
from services.opensearch.generations import (
    create_jobs_call,
    generation_call,
    index_not_found,
    read_generation,
    resolve_call,
)
from services.queue import Publisher
from services.settings import Settings
from services.versions import Clock

log = logging.getLogger(__name__)

# A swapped alias or a deleted index is noticed after this long.
REMEMBERED_SECONDS = 2.0
REPEATED_SECONDS = 60.0
REMEMBERED_FAILURE = 600.0

LoadEncoder = Callable[[Settings], Encoder]
LoadMaker = Callable[[Settings, str, Encoder], Maker]
LoadDense = Callable[[Settings, DenseIdentity], DenseModel]


def load_configured(settings: Settings) -> Encoder:
    """The encoder of the settings, with their threads and batches."""
    from models.registry import load_encoder

    # The encoder knows its best size; a size that was asked for is another matter.
    return load_encoder(settings.encoder, threads=settings.worker_threads, batch_pieces=settings.batch_pieces)


def load_known_dense(settings: Settings, identity: DenseIdentity) -> DenseModel:
    """The dense encoder of an index; one that can be fetched is, once. Raises ConfigurationError, EncoderMismatch."""
    from models.dense.opening import load_dense
    from services.known_dense import known_dense
    from services.machine.directories import DirectorySettings, cache_dir

    known = known_dense(settings).get(identity.name)
    if known is None or known.identity.fingerprint != identity.fingerprint:
        raise EncoderMismatch(
            "dense_mismatch",
            f"No dense encoder here is {identity.name} ({identity.fingerprint}): name its directory in "
            "SPARSEWELL_DENSE_ENCODERS.",
        )
    return load_dense(known, cache_dir(DirectorySettings.read()), log.info, threads=settings.worker_threads)


def load_chapter_maker(settings: Settings, engine: str, encoder: Encoder) -> Maker:
    """The engine of that name, with its chapters checked. Raises ConfigurationError for one that cannot be had."""
    from models.chapters.opening import ChapterMaker, open_engine

    return ChapterMaker(open_engine(engine, encoder, settings.chapter_model, threads=settings.worker_threads))


class Runtime:
    """Made in the parent, filled in each child when its first task asks: no client and no session crosses a fork."""

    def __init__(
        self,
        settings: Settings,
        worker: WorkerSettings,
        load: LoadEncoder = load_configured,
        load_dense: LoadDense = load_known_dense,
        load_maker: LoadMaker = load_chapter_maker,
    ) -> None:
        self.settings = settings
        self.worker = worker
        self.names = Names(settings.index_prefix)
        self.clock = Clock()
        self._load = load
        self._load_dense = load_dense
        self._load_maker = load_maker
        self._makers: dict[str, Maker] = {}
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

    def maker(self, engine: str) -> Maker:
        """What makes the chapters of talk, opened once. Raises whatever opening it does; ten minutes long without
        another try, which may be a download that each talk would wait for.
        """
        if engine not in self._makers:
            when, error = self._unopened.get(engine, (-REMEMBERED_FAILURE, None))
            if error is not None and time.monotonic() - when < REMEMBERED_FAILURE:
                raise error
            try:
                self._makers[engine] = self._load_maker(self.settings, engine, self.encoder)
            except Exception as failure:
                self._unopened[engine] = time.monotonic(), failure
                raise
        return self._makers[engine]

    @cached_property
    def search(self) -> SyncSearch:
        return SyncSearch(self.settings)

    @cached_property
    def publisher(self) -> Publisher:
        return Publisher(self.settings.redis_address)

    def generation(self, index: str, number: int | None = None) -> Generation:
        """The generation of that number, None: the one that the alias points to.

        Raises NotFound (`index_not_found`) and InvalidInput (`invalid_index_name`).
        """
        remembered = self._generations.get((index, number))
        now = time.monotonic()
        if remembered is not None and now - remembered[0] < REMEMBERED_SECONDS:
            return remembered[1]
        call = resolve_call(self.names, index)
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
        if now - self._said.get(trouble, -REPEATED_SECONDS) < REPEATED_SECONDS:
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
