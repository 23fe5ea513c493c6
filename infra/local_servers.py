"""OpenSearch and Redis on this machine: their settings, and their common life cycle.

A server runs as a child process. Its record in the directory of its files has its process and its address, so that
later commands find it (docs/decisions/0011).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol, Self, TypeVar

from pydantic import Field

from infra import processes
from infra.processes import ChildProcess
from services.directories import DirectorySettings, child_account, hold_lock, make_directory
from services.settings import OpenSearchUrl, RedisUrl, unprefixed_alias


class LocalSettings(DirectorySettings):
    """Settings of the servers on this machine, read from the environment (prefix `SPARSEWELL_`).

    `opensearch_url` and `redis_url` name existing servers; none is started in their place. Times are in seconds;
    `opensearch_heap` is a JVM size such as `512m`.
    """

    run_as: str = Field("nobody", description="the user of OpenSearch and Redis when sparsewell runs as root")

    opensearch_url: OpenSearchUrl | None = Field(None, validation_alias=unprefixed_alias("OPENSEARCH_URL"))
    opensearch_home: Path | None = Field(None, validation_alias=unprefixed_alias("OPENSEARCH_HOME"))
    opensearch_version: str = Field("3.6.0", pattern=r"^\d+\.\d+\.\d+$")
    opensearch_sha256: str = Field("", pattern="^([0-9a-f]{64})?$", description="of the zip of an unpinned release")
    opensearch_port: int = Field(19200, ge=0, le=65535, description="0: any free port")
    opensearch_transport_port: int = Field(0, ge=0, le=65535, description="0: any free port")
    opensearch_heap: str = Field("1g", pattern=r"^\d+[mg]$")
    opensearch_data_dir: Path | None = None
    opensearch_cluster_name: str = Field("sparsewell", pattern=r"^[A-Za-z0-9_-]+$")
    java_home: Path | None = None

    redis_url: RedisUrl | None = Field(None, validation_alias=unprefixed_alias("REDIS_URL"))
    redis_port: int = Field(16379, ge=0, le=65535, description="0: any free port")
    redis_data_dir: Path | None = None

    start_timeout: float = Field(300.0, gt=0, description="until a started process must be ready")
    stop_timeout: float = Field(30.0, gt=0, description="until a process that does not stop is killed")


Report = Callable[[str], None]


class ServerConfig(Protocol):
    """The members that the configurations of all servers have. `root` holds the files of the server."""

    @property
    def root(self) -> Path: ...

    @property
    def run_as(self) -> str: ...

    @property
    def stop_timeout(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class LocalServer:
    """Running server; a context manager that stops it at the end."""

    title: ClassVar[str]
    record_name: ClassVar[str]

    url: str
    child: ChildProcess
    root: Path
    stop_timeout: float = 30.0

    @classmethod
    def find(cls, root: Path) -> Self | None:
        """Return the running server that was started in `root`, or None."""
        record = processes.load_child(root / cls.record_name)
        if record is None or not record[0].alive():
            return None
        child, facts = record
        return cls(child=child, root=root, **facts)  # type: ignore[arg-type]  # a record of `save`

    def save(self) -> None:
        """Write the record, from which `find` makes an equal server."""
        facts = {
            member.name: getattr(self, member.name)
            for member in fields(self)
            if member.name not in {"child", "root", "stop_timeout"}
        }
        processes.save_child(self.child, self.root / self.record_name, **facts)

    def stop(self) -> bool:
        """Stop the server and remove its record; return False if it did not run any more."""
        stopped = processes.stop_child(self.child, self.stop_timeout)
        (self.root / self.record_name).unlink(missing_ok=True)
        return stopped

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


Server = TypeVar("Server", bound=LocalServer)


def start_once(kind: type[Server], config: ServerConfig, start: Callable[[], Server], report: Report) -> Server:
    """Return the server that already runs in the directory of `config`, or else start it. One process at a time."""
    make_directory(config.root, child_account(config.run_as))
    with hold_lock(
        config.root.parent / f".{config.root.name}.lock",
        lambda: report(f"Another process is starting {kind.title}; waiting for it."),
    ):
        running = kind.find(config.root)
        return start() if running is None else replace(running, stop_timeout=config.stop_timeout)
