"""Real services for every test that asks: an OpenSearch node and a Redis of this run's own, a live API, a worker.

Nothing is faked and nothing is skipped: where a server cannot be started, the tests that need it end in an error that
says what is missing. OPENSEARCH_URL, when set, is used instead of a node of our own.
"""

import itertools
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from infra import processes
from infra.local_servers import LocalSettings
from infra.opensearch.cluster import temporary_node
from infra.processes import ChildProcess, find_free_port
from infra.redis import temporary_redis
from infra.stack import ServiceProcess, service_processes, settings_environment, wait_until_ready
from services.settings import Settings
from services.web.http_server import ConnectionLimits, bounded_protocol

# hypothesis' own limit of 200 ms for an example says something of the machine and nothing of the code.
hypothesis_settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("untimed")

# A shell that runs us in the background leaves us deaf to SIGINT, and so were the children that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tracing doubles the time of a test. Coverage is that of the folders whose tests are to reach every line; the others
# ask whether the whole holds together.
TRACED = ("unit", "integration")

# Made once: reading the certificates takes longer than the requests of most tests, all of them over plain HTTP.
TLS = httpx.create_ssl_context()

# The processor may be away for seconds where others use the machine: a search of six documents once took more than the
# five that are a search's own deadline. Deadlines have tests of their own, which set them.
PATIENCE = 30.0

# Most nodes of a run live for seconds or minutes: without the optimising compiler a start takes a third less of the
# processor, and 46 tests of searches took 78 s of it instead of 112.
os.environ.setdefault("OPENSEARCH_JAVA_OPTS", "-XX:TieredStopAtLevel=1")

# Celery's queues have fixed names, so tests that share a Redis get a database each.
REDIS_DATABASES = 4096


# In several processes the folders with the longest modules come first: a long module that began last would leave the
# other processes without work. (In one process the quick ones come first, as `testpaths` has them.)
LONGEST_FIRST = (
    "training", "faults", "docker", "secured", "helm",
    "docker/test_image_contents.py",  # the second module that needs the images would wait for the first to make them
    "e2e", "congruence", "integration", "unit",
)  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if folder_of(item) not in TRACED:
            item.add_marker("no_cover")
    if "PYTEST_XDIST_WORKER" in os.environ:
        ranks = {place: rank for rank, place in enumerate(LONGEST_FIRST)}
        items.sort(key=lambda item: ranks.get(place_of(item), ranks.get(folder_of(item), 0)))


def place_of(item: pytest.Item) -> str:
    """Return the path of a test's module within `tests`."""
    return item.path.relative_to(Path(__file__).parent).as_posix()


def folder_of(item: pytest.Item) -> str:
    """Return the folder of `tests` that a test lies in."""
    return place_of(item).partition("/")[0]


@pytest.fixture(scope="session")
def local_settings() -> LocalSettings:
    """Where the machine keeps the distribution, which Java it has: the environment's own settings."""
    return LocalSettings.read()


@pytest.fixture(scope="session")
def opensearch_url(local_settings: LocalSettings) -> Iterator[str]:
    """A node that lives as long as the test run (or the one of OPENSEARCH_URL)."""
    if local_settings.opensearch_url:
        yield local_settings.opensearch_url
        return
    with temporary_node(local_settings) as node:
        yield node.url


@pytest.fixture(scope="session")
def redis_server_url(local_settings: LocalSettings) -> Iterator[str]:
    """A Redis that lives as long as the test run, without a database number."""
    with temporary_redis(local_settings, databases=REDIS_DATABASES) as server:
        yield server.url.rsplit("/", maxsplit=1)[0]


@pytest.fixture(scope="session")
def redis_database_numbers() -> Iterator[int]:
    """The numbers of databases that no test has used."""
    return itertools.count(1)


@pytest.fixture
def redis_url(redis_server_url: str, redis_database_numbers: Iterator[int]) -> Iterator[str]:
    """An empty database of the run's Redis, this test's alone."""
    url = f"{redis_server_url}/{next(redis_database_numbers)}"
    yield url
    with closing(redis.Redis.from_url(url)) as client:
        client.flushdb()


@pytest.fixture
def index_prefix(opensearch_url: str) -> Iterator[str]:
    """A prefix of this test's own; what was created under it is deleted at the end."""
    prefix = f"t{secrets.token_hex(6)}"
    yield prefix
    delete_indexes(opensearch_url, prefix)


def delete_indexes(opensearch_url: str, prefix: str) -> None:
    """Deletes the indexes of a prefix by their full names, as a node that forbids wildcards demands."""
    with httpx.Client(base_url=opensearch_url, timeout=30, trust_env=False, verify=TLS) as client:
        listed = client.get("/_cat/indices", params={"format": "json", "expand_wildcards": "all"}).raise_for_status()
        for row in listed.json():
            if row["index"].startswith(prefix):
                client.delete(f"/{row['index']}").raise_for_status()


def service_settings(opensearch_url: str, redis_url: str, **chosen: Any) -> Settings:
    """Return the settings of a separate service with the small deterministic encoder."""
    own = {
        "opensearch_url": opensearch_url,
        "redis_url": redis_url,
        "index_prefix": f"t{secrets.token_hex(6)}",
        "encoder": "standin",
        "api_port": find_free_port(),
        "worker_concurrency": 1,
        "search_timeout": PATIENCE,
    }
    return Settings(**(own | chosen))


@pytest.fixture
def settings(opensearch_url: str, redis_url: str, index_prefix: str) -> Settings:
    """Settings of a service of this test's own.

    A test that wants others uses `settings.model_copy(update={...})`, or overrides this fixture in its module.
    """
    return service_settings(opensearch_url, redis_url, index_prefix=index_prefix, sweep_interval=0.5)


@pytest.fixture(scope="session")
def new_settings(
    opensearch_url: str, redis_server_url: str, redis_database_numbers: Iterator[int]
) -> Callable[..., Settings]:
    """`new_settings(**chosen)`: for a module whose service outlives a test; it deletes what lies under the prefix."""

    def make(**chosen: Any) -> Settings:
        return service_settings(opensearch_url, f"{redis_server_url}/{next(redis_database_numbers)}", **chosen)

    return make


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """A live API in a thread of this process, so that its lines count as covered; its address."""
    import uvicorn

    from query_api.app import create_app

    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.api_host,
            port=settings.api_port,
            http=bounded_protocol(ConnectionLimits.of(settings)),  # type: ignore[arg-type]  # called as a class is
            log_config=None,
            ws="none",
            timeout_keep_alive=settings.idle_seconds,  # (uvicorn's own, 5 s, is when httpx lets a connection go)
        )
    )
    thread = threading.Thread(target=server.run, name="api")
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive(), 60, "the API starts")
        assert thread.is_alive(), "the API ended while it started; its error is above"
        yield f"http://{settings.api_host}:{settings.api_port}"
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="session")
def new_service(
    new_settings: Callable[..., Settings],
) -> Callable[..., AbstractContextManager[tuple[httpx.Client, Settings]]]:
    """`with new_service(**chosen) as (client, settings)`: a live API while a module asks; then its indexes go."""

    @contextmanager
    def make(**chosen: Any) -> Iterator[tuple[httpx.Client, Settings]]:
        settings = new_settings(**chosen)
        with serving(settings) as url, httpx.Client(base_url=url, timeout=30, trust_env=False, verify=TLS) as client:
            yield client, settings
        delete_indexes(settings.opensearch_url, settings.index_prefix)

    return make


@pytest.fixture
def api_url(settings: Settings) -> Iterator[str]:
    """The address of this test's own API."""
    with serving(settings) as url:
        yield url


@pytest.fixture
def api(api_url: str) -> Iterator[httpx.Client]:
    """A client of the live API."""
    with httpx.Client(base_url=api_url, timeout=30, trust_env=False, verify=TLS) as client:
        yield client


@pytest.fixture
def start_part(settings: Settings, tmp_path: Path) -> Iterator[Callable[[str], ChildProcess]]:
    """Starts a process of the service (worker, sweeper, api) and returns once it is ready; stopped at the end.

    For tests that kill one: `processes.stop`, or a signal to `child.pid`.
    """
    parts = {part.name: part for part in service_processes(settings)}
    started: list[ChildProcess] = []

    def start(name: str) -> ChildProcess:
        part: ServiceProcess = parts[name]
        child = processes.start_child(
            name,
            part.command,
            tmp_path / f"{name}-{len(started)}.log",
            environment=child_environment(settings),
            directory=tmp_path,
            tied=True,
        )
        started.append(child)
        wait_until_ready(part, child, 60)
        return child

    yield start
    for child in reversed(started):
        end(child)


def end(child: ChildProcess) -> None:
    """Ends a process that a test no longer needs: killed, for an idle worker takes seconds to end in order.

    What SIGTERM promises has tests of its own (test_worker_process, test_sweeper, faults/test_workers).
    """
    processes.stop_child(child, 0)


@pytest.fixture
def worker(start_part: Callable[[str], ChildProcess]) -> ChildProcess:
    """A real Celery worker, a process of its own, that takes this test's messages."""
    return start_part("worker")


@pytest.fixture
def sweeper(start_part: Callable[[str], ChildProcess]) -> ChildProcess:
    """A real sweeper, a process of its own."""
    return start_part("sweeper")


def child_environment(settings: Settings) -> dict[str, str]:
    """Our environment, with the variables that make a child read the same settings."""

    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SPARSEWELL_")}
    return {**inherited, "PYTHONUNBUFFERED": "1", **settings_environment(settings)}


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Returns once the condition holds; fails, naming it, when it does not within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"after {seconds:.0f} s still waiting until {what}")
        time.sleep(0.05)


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], object], float, str], None]:
    """`eventually(condition, seconds, what)`: `wait_for`, for test modules."""
    return wait_for


@pytest.fixture(scope="session")
def live_api() -> Callable[[Settings], AbstractContextManager[str]]:
    """`with live_api(settings) as address`: `serving`, for modules whose API outlives a test."""
    return serving


@pytest.fixture(scope="session")
def remove_indexes() -> Callable[[str, str], None]:
    """`remove_indexes(opensearch_url, prefix)`: `delete_indexes`, for the same modules."""
    return delete_indexes


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """The run ends with an error when a test left a process behind."""
    yield
    left = [child for child in psutil.Process().children(recursive=True) if _is_a_server(child)]
    assert not left, f"still running after the tests: {left}"


def _is_a_server(process: psutil.Process) -> bool:
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return any(part in line for part in ("opensearch", "redis-server", "cli.main"))
