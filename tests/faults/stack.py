"""An installation of API, worker and sweeper processes, with its own Redis and a node that tests share."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import orjson
from redis import Redis

from infra.ports import find_free_port
from infra.stack import settings_environment
from models.registry import load_encoder
from services.encoders.manifest import WindowSettings
from services.encoders.vectors import merge_max
from services.errors import BackendUnavailable, NotFound, Overloaded
from services.index_spec import IndexNames
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import refresh_call
from services.opensearch.journal import read_stored_hits
from services.opensearch.stored_document import StoredDocument, read_windows
from services.queue.lanes import INGEST_QUEUE, encode_queues
from services.settings import Settings
from tests.faults.history import Final
from tests.faults.processes import RedisProcess, Running, wait_for

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
INDEX = "docs"

# Worker times in seconds: an unacknowledged message comes again after 8 s, and Celery checks about every second. Leases
# and sweeps are in the settings of `conftest.py: new_stack`.
TIMES = {"task_budget": 2, "task_limit": 4, "redelivery": 8, "retry_seconds": 20, "worker_concurrency": 1}


class Stack:
    """Start processes with one set of settings. `stop` ends them all."""

    def __init__(self, settings: Settings, directory: Path, redis: RedisProcess) -> None:
        self.settings, self.redis = settings, redis
        self.queues = encode_queues(settings.encoder)
        self._directory = directory
        self._started: list[Running] = []
        self.search = SyncSearchClient(settings)
        self.physical = IndexNames(settings.index_prefix).physical(INDEX, 1)

    # processes

    def run(
        self,
        name: str,
        *arguments: str,
        ready: Callable[[Running], bool],
        may_end: bool = False,
        **environment: object,
    ) -> Running:
        """Start a Python program of the project. `may_end`: it may refuse to start.

        In `environment`, `task_limit=4` sets SPARSEWELL_TASK_LIMIT for this process alone. A name in upper case is an
        environment variable.
        """
        chosen = {key if key.isupper() else f"SPARSEWELL_{key.upper()}": str(v) for key, v in environment.items()}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("SPARSEWELL_")}
        running = Running.start(
            name,
            arguments,
            self._directory / f"{name}-{len(self._started)}.log",
            inherited
            | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
            | settings_environment(self.settings)
            | chosen,
        )
        self._started.append(running)
        wait_for(lambda: ready(running) or not running.alive, 90, f"{name} is ready")
        assert may_end or running.alive, f"{name} ended while it started:\n{running.log[-3000:]}"
        return running

    def worker(self, *without: str, **environment: object) -> Running:
        """Start a worker whose encoder fails at certain words (accidents.py). The rest is the product's.

        `without` names the protections that without/worker.py removes.
        """
        program = HERE / "without" / "worker.py" if without else HERE / "accidents.py"
        return self.run(
            "worker", str(program), *without, ready=lambda worker: "ready." in worker.log, **(TIMES | environment)
        )

    def sweeper(self, **environment: object) -> Running:
        return self.run("sweeper", "-m", "cli.main", "sweeper", ready=_sweeps, **(TIMES | environment))

    def api(self, *without: str, port: int | None = None, **environment: object) -> tuple[Running, str]:
        """Start the API and return it with its address. `port` keeps an earlier address.

        `without` names the protections that without/api.py removes.
        """
        port = port or find_free_port()
        url = f"http://127.0.0.1:{port}"
        program = [str(HERE / "without" / "api.py"), *without] if without else ["-m", "cli.main", "api"]
        running = self.run("api", *program, ready=lambda _: _answers(f"{url}/healthz"), api_port=port, **environment)
        return running, url

    def stop(self) -> None:
        """End all processes of the stack. Its Redis and its node belong to the test."""
        while self._started:
            self._started.pop().close()

    def delete_indexes(self) -> None:
        """Delete the stack's indexes on a node that other tests use as well."""
        names = self.search.send(Call("GET", f"/_cat/indices/{self.settings.index_prefix}*", params={"format": "json"}))
        for one in names:
            self.search.send(Call("DELETE", f"/{one['index']}"))
        self.search.close()

    # the state of the installation

    def owed(self) -> int:
        """Count the waiting and unacknowledged messages of the encode queue and the ingest queue together."""
        with closing(self.broker()) as client:
            return int(client.hlen("unacked")) + sum(int(client.llen(one)) for one in (*self.queues, INGEST_QUEUE))

    def broker(self) -> "Redis":
        """Return a client of its database of Redis."""
        return Redis.from_url(self.settings.redis_url, socket_timeout=5, socket_connect_timeout=2)

    def states(self) -> dict[str, str]:
        """Return the states of documents by id, as searches see them after a refresh."""
        return {stored.id: stored.state for stored in self.documents("state")}

    def documents(self, *fields: str) -> list[StoredDocument]:
        """Return the given fields of all documents, as searches see them after a refresh."""
        return read_stored_hits(self._all(list(fields)))

    def pending(self) -> int:
        return sum(state == "pending" for state in self.states().values())

    def settle(self, seconds: float = 60) -> int:
        """Wait until no document is pending, up to the time limit. Return how many are pending."""
        deadline = monotonic() + seconds
        while (left := self.pending()) and monotonic() < deadline:
            sleep(0.2)
        return left

    def drain(self, seconds: float = 60) -> int:
        """Wait until the queues are empty, for controls without a sweeper. Return how many documents stay pending."""
        wait_for(lambda: not self.owed(), seconds, "no message waits or is in work")
        return self.pending()

    def final(self) -> dict[str, Final]:
        """Return every document as searches see it, and compare its vectors with those of its text.

        A search for the document's heaviest token in the index of weights decides whether the document is found.
        """
        answer = self._all(["state", "text", "title", "error", "windows"])
        found: dict[str, Final] = {}
        heaviest_pieces: list[tuple[str, int]] = []
        encoder = load_encoder(self.settings.encoder)
        for stored in read_stored_hits(answer):
            text = stored.source.get("text")
            fit = True
            if stored.state == "encoded":
                windows = read_windows(stored.source)
                expected = encoder.encode(encoder.windows(text or "", *_sizes(encoder.manifest.window)))
                fit = [w.vector.pack() for w in windows] == [vector.pack() for vector in expected]
                vector = merge_max(w.vector for w in windows)
                if len(vector):
                    heaviest_pieces.append((stored.id, int(vector.ids[int(vector.weights.argmax())])))
            reason = (stored.source.get("error") or {}).get("code", "")
            found[stored.id] = Final(stored.state, None if stored.state == "deleted" else text, reason, fit)
        for one, is_found in zip(heaviest_pieces, self._finds(heaviest_pieces), strict=True):
            if not is_found:
                found[one[0]] = Final(**(vars(found[one[0]]) | {"found": False}))
        return found

    def last_look(self) -> dict[str, Final]:
        """Call `final`, then end the processes, so that the test's next installation has the machine to itself."""
        found = self.final()
        self.stop()
        return found

    def _all(self, fields: list[str]) -> Any:
        body = {"size": 10_000, "query": {"match_all": {}}, "version": True, "_source": fields}

        def read() -> Any:
            self.search.send(refresh_call(self.physical))
            return self.search.send(Call("POST", f"/{self.physical}/_search", orjson.dumps(body)))

        return retry_while_unavailable(read)

    def _finds(self, heaviest_pieces: list[tuple[str, int]]) -> list[bool]:
        lines = b"".join(
            b"{}\n" + orjson.dumps({"size": 1, "_source": False, "query": {"bool": {
                "filter": [{"ids": {"values": [one]}}],
                "must": [{"rank_feature": {"field": f"sparse.{piece}", "linear": {}}}]}}}) + b"\n"
            for one, piece in heaviest_pieces
        )  # fmt: skip
        if not heaviest_pieces:
            return []
        answer = retry_while_unavailable(
            lambda: self.search.send(Call("POST", f"/{self.physical}/_msearch", lines, ndjson=True))
        )
        return [bool(one["hits"]["hits"]) for one in answer["responses"]]


def _sizes(window: WindowSettings) -> tuple[int, int]:
    return window.pieces, window.overlap


def retry_while_unavailable(call: Callable[[], Any], seconds: float = 30) -> Any:
    """Retry while OpenSearch is away. The service makes no promise about a test's own requests."""
    deadline = monotonic() + seconds
    while True:
        try:
            return call()
        except (BackendUnavailable, Overloaded, NotFound):
            if monotonic() > deadline:
                raise
            sleep(0.2)


def _sweeps(sweeper: Running) -> bool:
    return "sweeping every" in sweeper.log


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False
