"""Servers and processes of a benchmark's own: on free ports, in temporary folders, stopped at the end."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from infra import processes
from infra.opensearch.temporary import temporary_node
from infra.ports import free_port
from infra.processes import Child
from infra.redis import temporary_redis
from infra.settings import LocalSettings
from infra.stack.parts import service_parts, settings_environment, wait_until_ready
from services.opensearch.client import Call, SyncSearch
from services.settings import Settings

_START_SECONDS = 120.0
_STOP_SECONDS = 30.0


@contextmanager
def node_settings() -> Iterator[Settings]:
    """Settings that point to a fresh node (or to OPENSEARCH_URL), with a prefix of this run's own, cleaned up there."""
    local = LocalSettings.read()
    prefix = f"bench{secrets.token_hex(4)}"
    if local.opensearch_url:
        settings = Settings(opensearch_url=local.opensearch_url, index_prefix=prefix, api_port=free_port())
        try:
            yield settings
        finally:
            _remove(settings)
        return
    with temporary_node(local, print) as node:
        yield Settings(opensearch_url=node.url, index_prefix=prefix, api_port=free_port())


@contextmanager
def service_settings() -> Iterator[Settings]:
    """As `node_settings`, with a fresh Redis as well."""
    with node_settings() as settings, temporary_redis(LocalSettings.read(), print) as server:
        yield settings.model_copy(update={"redis_url": server.url})


@contextmanager
def running(settings: Settings, name: str, command: tuple[str, ...] = ()) -> Iterator[Child]:
    """A process of the service (api, worker or sweeper), ready; `command` is run in its place."""
    with tempfile.TemporaryDirectory(prefix="sparsewell-bench-") as folder:
        child = started(settings, name, Path(folder) / f"{name}.log", command)
        try:
            yield child
        finally:
            processes.stop(child, _STOP_SECONDS)


def started(settings: Settings, name: str, log: Path, command: tuple[str, ...] = ()) -> Child:
    """As `running`, for who stops it; it is stopped here where it does not become ready."""
    part = next(part for part in service_parts(settings) if part.name == name)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SPARSEWELL_")}
    environment = {**kept, "PYTHONUNBUFFERED": "1", **settings_environment(settings)}
    child = processes.start(
        name, command or part.command, log, environment=environment, directory=Path.cwd(), tied=True
    )
    try:
        wait_until_ready(part, child, _START_SECONDS)
    except BaseException:
        processes.stop(child, _STOP_SECONDS)
        raise
    return child


def opensearch_version(settings: Settings) -> str:
    """What the node says that it is."""
    with closing(SyncSearch(settings)) as search:
        return str(search.send(Call("GET", "/"))["version"]["number"])


def _remove(settings: Settings) -> None:
    """By full names: a company's cluster may forbid wildcards in deletes."""
    with closing(SyncSearch(settings)) as search:
        listed = search.send(Call("GET", "/_cat/indices", params={"format": "json", "expand_wildcards": "all"}))
        for row in listed:
            if row["index"].startswith(settings.index_prefix):
                search.send(Call("DELETE", f"/{row['index']}"))
