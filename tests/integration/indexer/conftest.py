"""Provide journalled documents, workers whose encoder fails on demand, and access to the results."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from indexer.runtime import Runtime, WorkerSettings
from infra import processes
from infra.processes import ChildProcess
from infra.stack import settings_environment
from models.encoder import Encoder
from models.registry import load_encoder
from services.opensearch.client import SyncSearchClient
from services.queue.messages import Publisher
from services.settings import Settings
from tests.integration.indexer.journalled import Journal, log_of
from tests.preloaded import start_program

Eventually = Callable[[Callable[[], object], float, str], None]
POISONED_WORKER = Path(__file__).with_name("poisoned_worker.py")


@pytest.fixture
def search(settings: Settings) -> Iterator[SyncSearchClient]:
    """Return a client of the test's node."""
    with closing(SyncSearchClient(settings)) as client:
        yield client


@pytest.fixture
def publisher(settings: Settings) -> Iterator[Publisher]:
    """Return a producer for the test's Redis."""
    with closing(Publisher(settings.redis_url)) as one:
        yield one


@pytest.fixture
def broker(settings: Settings) -> Iterator["redis.Redis"]:
    """Return a client of the test's Redis."""
    with closing(redis.Redis.from_url(settings.redis_url)) as client:
        yield client


@pytest.fixture(scope="session")
def standin() -> Encoder:
    """Return the small encoder that the tests' workers use."""
    return load_encoder("standin")


@pytest.fixture
def runtime(settings: Settings, standin: Encoder) -> Runtime:
    """Return the runtime of a worker in this process."""
    return Runtime(settings, WorkerSettings(retry_seconds=2), lambda _: standin)


@pytest.fixture
def journal(settings: Settings, search: SyncSearchClient) -> Journal:
    """Create an empty index."""
    return Journal(settings, search)


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., ChildProcess]]:
    """Start a Python program of the project with the test's settings.

    Keyword arguments are more environment variables.
    """
    started: list[ChildProcess] = []

    def run(*arguments: str, **environment: object) -> ChildProcess:
        child = start_program(
            arguments[-1],
            arguments,
            tmp_path / f"process-{len(started)}.log",
            environment={
                **{name: value for name, value in os.environ.items() if not name.startswith("SPARSEWELL_")},
                "PYTHONUNBUFFERED": "1",
                **settings_environment(settings),
                **{name: str(value) for name, value in environment.items()},
            },
            directory=Path.cwd(),
        )
        started.append(child)
        return child

    yield run
    for child in reversed(started):
        processes.stop_child(child, 0)  # (an orderly stop takes seconds, and no test needs the last output)


@pytest.fixture
def poisoned_worker(start: Callable[..., ChildProcess], eventually: Eventually) -> Callable[..., ChildProcess]:
    """Start a real worker whose encoder fails at certain words, see poisoned_worker.py."""

    def run(**environment: object) -> ChildProcess:
        child = start(str(POISONED_WORKER), **environment)
        eventually(lambda: "ready." in log_of(child), 60, "the worker is ready")
        return child

    return run


@pytest.fixture
def sweeper_soon(start: Callable[..., ChildProcess], eventually: Eventually) -> Callable[[], ChildProcess]:
    """Start a real sweeper with a lease of one second. The leases in the journal come from the settings."""

    def run() -> ChildProcess:
        child = start("-m", "cli.main", "sweeper", SPARSEWELL_LEASE_SECONDS=1, SPARSEWELL_SWEEP_INTERVAL=0.3)
        eventually(lambda: "sweeping every" in log_of(child), 60, "the sweeper runs")
        return child

    return run
