"""Provide breakable stacks and the table of results."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from infra.local_servers import LocalSettings
from infra.opensearch.node import resolve_data_directory
from services.directories import child_account, temporary_state_directory
from services.settings import Settings
from tests.faults.processes import OpenSearchProcess, RedisProcess
from tests.faults.rows import Row, save, table
from tests.faults.stack import Stack

ROWS = pytest.StashKey[list[Row]]()
_PREFIXES = itertools.count()

NewStack = Callable[..., Stack]


@pytest.fixture
def state_directory(local_settings: LocalSettings) -> Iterator[Path]:
    """Return a directory that the servers' account can reach."""
    within = resolve_data_directory(Path("/tmp"))  # noqa: S108 (Java must be able to work on it)
    with temporary_state_directory(child_account(local_settings.run_as), within) as directory:
        yield directory


@pytest.fixture
def new_redis(state_directory: Path, local_settings: LocalSettings) -> Iterator[Callable[..., RedisProcess]]:
    """Start a Redis for this test. Keywords are those of RedisProcess."""
    with ExitStack() as started:

        def start(**options: Any) -> RedisProcess:
            directory = state_directory / f"redis-{next(_PREFIXES)}"
            directory.mkdir()
            directory.chmod(0o755)
            one = RedisProcess(directory, local_settings, **options)
            started.callback(one.close)
            one.start()
            return one

        yield start


@pytest.fixture
def new_node(state_directory: Path, local_settings: LocalSettings) -> Iterator[Callable[..., OpenSearchProcess]]:
    """Start an OpenSearch for tests that kill or pause it."""
    with ExitStack() as started:

        def start(**options: Any) -> OpenSearchProcess:
            directory = state_directory / f"node-{next(_PREFIXES)}"
            directory.mkdir()
            directory.chmod(0o755)
            one = OpenSearchProcess(directory, local_settings, **options)
            started.callback(one.close)
            one.start()
            return one

        yield start


@pytest.fixture
def new_stack(opensearch_url: str, tmp_path: Path, new_redis: Callable[..., RedisProcess]) -> Iterator[NewStack]:
    """Create installations. `redis` is a shared Redis; otherwise each has its own. Other keywords are settings."""
    with ExitStack() as made:

        def make(*, redis: RedisProcess | None = None, **settings: Any) -> Stack:
            prefix = f"f{os.getpid()}x{next(_PREFIXES)}"
            redis = redis or new_redis()
            chosen = {
                "opensearch_url": opensearch_url,
                "redis_url": redis.url,
                "index_prefix": prefix,
                "encoder": "standin",
                "lease_seconds": 2.0,
                "sweep_interval": 0.3,
                "refresh_interval": "200ms",
            }
            directory = tmp_path / prefix
            directory.mkdir()
            stack = Stack(Settings(**(chosen | settings)), directory, redis)
            if stack.settings.opensearch_url == opensearch_url:
                made.callback(stack.delete_indexes)
            made.callback(stack.stop)
            return stack

        yield make


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Record a row of the table. Assert a loss without the protection and none with it."""
    began = time.monotonic()

    def hand_in(**members: Any) -> None:
        one = Row(**members, seconds=round(time.monotonic() - began, 1))
        request.config.stash.setdefault(ROWS, []).append(one)
        assert one.with_it == 0, f"{one.with_it} {one.counted} in spite of the protection"
        assert one.without > 0, f"the control shows nothing: no {one.counted}"

    return hand_in


def pytest_sessionfinish(session: pytest.Session) -> None:
    rows, path = session.config.stash.get(ROWS, []), os.environ.get("FAULT_ROWS")
    if rows and path:
        save(rows, Path(path))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash.get(ROWS, []):
        terminalreporter.section("what the protections are worth")
        terminalreporter.write_line(table(rows))
