"""Provide real services to the tests: an OpenSearch node and a Redis of the run, a live API and a worker.

Nothing is faked. Only the tests of the images are skipped, where no container engine works. Where a server cannot be
started, the tests that need it fail with an error that names the missing program. If OPENSEARCH_URL is set, the tests
use that node and start none.
"""

import itertools
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
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
from infra.ports import find_free_port, is_port_taken
from infra.processes import ChildProcess
from infra.redis import temporary_redis
from infra.stack import ServiceProcess, service_processes, settings_environment, wait_until_ready
from services.settings import Settings
from services.web.http_server import ConnectionLimits, bounded_protocol
from tests.preloaded import is_fork_server, is_program, start_program

# The limit of 200 ms that Hypothesis sets for an example measures the machine, not the code.
hypothesis_settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("untimed")

# A shell that runs the tests in the background makes them ignore SIGINT. Their child processes would inherit that, and
# tests could not interrupt them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tracing doubles the time of a test. Coverage is measured in the folders whose tests must reach every line. The other
# folders test whole systems.
TRACED = ("unit", "integration")

# The context is created once: loading the certificates takes longer than the requests of most tests, which use plain
# HTTP.
TLS = httpx.create_ssl_context()

# On a shared machine a process may wait seconds for the processor: a search of six documents once exceeded the default
# deadline of five seconds. Tests of deadlines set their own.
TEST_TIMEOUT_SECONDS = 30.0

# Most nodes of a run live for seconds or minutes. Without the optimising compiler a start takes a third less processor
# time, and 46 tests of searches took 78 s instead of 112 s.
os.environ.setdefault("OPENSEARCH_JAVA_OPTS", "-XX:TieredStopAtLevel=1")

# Celery's queues have fixed names, so each test that shares a Redis gets its own database.
REDIS_DATABASES = 4096


# With several processes the folders with the longest modules come first, because a long module that starts last leaves
# the other processes idle. With one process the quick folders come first, as in `testpaths`.
LONGEST_FIRST = (
    "training", "faults", "docker", "secured", "helm", "e2e", "congruence", "integration", "unit",
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
    """Return the local settings of the environment: the location of the distribution and of Java."""
    return LocalSettings.read()


@pytest.fixture(scope="session")
def opensearch_url(local_settings: LocalSettings) -> Iterator[str]:
    """Start a node for the whole test run, or return the address in OPENSEARCH_URL."""
    if local_settings.opensearch_url:
        yield local_settings.opensearch_url
        return
    with temporary_node(local_settings) as node:
        yield node.url


@pytest.fixture(scope="session")
def redis_server_url(local_settings: LocalSettings) -> Iterator[str]:
    """Start a Redis for the whole test run. Return its address without a database number."""
    with temporary_redis(local_settings, databases=REDIS_DATABASES) as server:
        yield server.url.rsplit("/", maxsplit=1)[0]


@pytest.fixture(scope="session")
def redis_database_numbers() -> Iterator[int]:
    """Yield the numbers of unused databases."""
    return itertools.count(1)


@pytest.fixture
def redis_url(redis_server_url: str, redis_database_numbers: Iterator[int]) -> Iterator[str]:
    """Return the address of an empty database of the run's Redis, which only this test uses."""
    url = f"{redis_server_url}/{next(redis_database_numbers)}"
    yield url
    with closing(redis.Redis.from_url(url)) as client:
        client.flushdb()


@pytest.fixture
def index_prefix(opensearch_url: str) -> Iterator[str]:
    """Return an index prefix of this test. The fixture deletes all indexes with the prefix at the end."""
    prefix = f"t{secrets.token_hex(6)}"
    yield prefix
    delete_indexes(opensearch_url, prefix)


def delete_indexes(opensearch_url: str, prefix: str) -> None:
    """Delete the indexes of a prefix by their full names, because a node may forbid wildcards."""
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
        "search_timeout": TEST_TIMEOUT_SECONDS,
    }
    return Settings(**(own | chosen))


@pytest.fixture
def settings(opensearch_url: str, redis_url: str, index_prefix: str) -> Settings:
    """Return the settings of a service of this test.

    A test that needs other settings calls `settings.model_copy(update={...})` or overrides this fixture in its module.
    """
    return service_settings(opensearch_url, redis_url, index_prefix=index_prefix, sweep_interval=0.5)


@pytest.fixture(scope="session")
def new_settings(
    opensearch_url: str, redis_server_url: str, redis_database_numbers: Iterator[int]
) -> Callable[..., Settings]:
    """Provide `new_settings(**chosen)` for a module whose service outlives a test.

    The fixture deletes the indexes with the prefix.
    """

    def make(**chosen: Any) -> Settings:
        return service_settings(opensearch_url, f"{redis_server_url}/{next(redis_database_numbers)}", **chosen)

    return make


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Serve a live API in a thread of this process, so that coverage counts its lines. Yield its address."""
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
            timeout_keep_alive=settings.idle_seconds,  # (httpx drops idle connections at uvicorn's default, 5 s)
        )
    )
    thread = threading.Thread(target=server.run, name="api")
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive(), 60, "the API starts")
        assert thread.is_alive(), "the API ended while it started; its error is above"
        state = f"stops: {server.should_exit}, listeners: {[each.sockets for each in server.servers]}"
        assert is_port_taken(settings.api_port), f"the API has started and does not listen ({state})"
        yield f"http://{settings.api_host}:{settings.api_port}"
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="session")
def new_service(
    new_settings: Callable[..., Settings],
) -> Callable[..., AbstractContextManager[tuple[httpx.Client, Settings]]]:
    """Provide `with new_service(**chosen) as (client, settings)`: a live API for a module.

    Its indexes are deleted afterwards.
    """

    @contextmanager
    def make(**chosen: Any) -> Iterator[tuple[httpx.Client, Settings]]:
        settings = new_settings(**chosen)
        with serving(settings) as url, httpx.Client(base_url=url, timeout=30, trust_env=False, verify=TLS) as client:
            yield client, settings
        delete_indexes(settings.opensearch_url, settings.index_prefix)

    return make


@pytest.fixture
def api_url(settings: Settings) -> Iterator[str]:
    """Return the address of this test's API."""
    with serving(settings) as url:
        yield url


@pytest.fixture
def api(api_url: str) -> Iterator[httpx.Client]:
    """Return a client of the live API."""
    with httpx.Client(base_url=api_url, timeout=30, trust_env=False, verify=TLS) as client:
        yield client


@pytest.fixture
def start_service_process(settings: Settings, tmp_path: Path) -> Iterator[Callable[[str], ChildProcess]]:
    """Start a process of the service (worker, sweeper or api), return it once it is ready, and stop it at the end.

    A test that kills a process calls `processes.stop` or sends a signal to `child.pid`.
    """
    services = {service.name: service for service in service_processes(settings)}
    started: list[ChildProcess] = []

    def start(name: str) -> ChildProcess:
        service: ServiceProcess = services[name]
        log = tmp_path / f"{name}-{len(started)}.log"
        child = launch_service(service, log, environment=child_environment(settings))
        started.append(child)
        wait_until_ready(service, child, 60)
        return child

    yield start
    for child in reversed(started):
        end(child)


def launch_service(service: ServiceProcess, log: Path, *, environment: Mapping[str, str]) -> ChildProcess:
    """Start a process of the service in the folder of its log. The caller waits until it is ready."""
    _, *arguments = service.command
    return start_program(service.name, arguments, log, environment=environment, directory=log.parent)


def end(child: ChildProcess) -> None:
    """Kill a process that a test no longer needs, because an idle worker takes seconds to stop.

    Other tests cover SIGTERM (test_worker_process, test_sweeper, faults/test_workers).
    """
    processes.stop_child(child, 0)


@pytest.fixture
def worker(start_service_process: Callable[[str], ChildProcess]) -> ChildProcess:
    """Start a real Celery worker in its own process, which takes this test's messages."""
    return start_service_process("worker")


@pytest.fixture
def sweeper(start_service_process: Callable[[str], ChildProcess]) -> ChildProcess:
    """Start a real sweeper in its own process."""
    return start_service_process("sweeper")


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the environment with the variables that give a child process the same settings."""

    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SPARSEWELL_")}
    return {**inherited, "PYTHONUNBUFFERED": "1", **settings_environment(settings)}


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Return once the condition holds. Fail and name the condition if it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"after {seconds:.0f} s still waiting until {what}")
        time.sleep(0.05)


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], object], float, str], None]:
    """Provide `eventually(condition, seconds, what)`, which is `wait_for`, to test modules."""
    return wait_for


@pytest.fixture(scope="session")
def live_api() -> Callable[[Settings], AbstractContextManager[str]]:
    """Provide `with live_api(settings) as address`, which is `serving`, to modules whose API outlives a test."""
    return serving


@pytest.fixture(scope="session")
def remove_indexes() -> Callable[[str, str], None]:
    """Provide `remove_indexes(opensearch_url, prefix)`, which is `delete_indexes`, to the same modules."""
    return delete_indexes


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """End the run with an error if a test left a process running. Kill it, or the end of the run would wait for it."""
    yield
    left = [child for child in psutil.Process().children(recursive=True) if _is_a_server(child)]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert not left, f"still running after the tests: {left}"


def _is_a_server(process: psutil.Process) -> bool:
    try:
        if is_fork_server(process):
            return False
        line = " ".join(process.cmdline())
        return is_program(process) or any(part in line for part in ("opensearch", "redis-server", "cli.main"))
    except psutil.Error:
        return False
