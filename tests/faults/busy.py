"""Run a client that writes and searches during a fault and records the responses."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.faults.door import Door
from tests.faults.stack import INDEX

WORD = "kept"


class Busy:
    """Write ten documents at a time from one thread and search from another until `busy` ends.

    Before that, `kept` documents hold the word "kept". Every search is for them.
    """

    def __init__(self, url: str, *, kept: int = 40, timeout: float = 60) -> None:
        self.door = Door(url, timeout=timeout)
        self.kept = kept
        self.sent = 0
        self.hits: list[int] = []  # of the successful searches
        self.refused = 0  # searches with a 503 response
        self.seconds: list[float] = []  # of all searches
        self._http = httpx.Client(base_url=url, timeout=timeout, trust_env=False)
        self._over = threading.Event()

    def prepare(self) -> None:
        """Create the index and the documents that the searches look for."""
        self.door.create_index()
        self.door.post({f"k{i}": f"{WORD} {i}" for i in range(self.kept)})

    @property
    def partial(self) -> int:
        """Return how many responses lacked documents."""
        return sum(hits != self.kept for hits in self.hits)

    def search(self) -> httpx.Response:
        answer = self._http.get(f"/v1/indexes/{INDEX}/search", params={"q": WORD, "mode": "lexical", "size": 100})
        self.seconds.append(answer.elapsed.total_seconds())
        if answer.status_code == 200:
            self.hits.append(len(answer.json()["hits"]))
        else:
            assert answer.status_code == 503, answer.text
            self.refused += 1
        return answer

    def write(self) -> None:
        self.door.post({f"d{self.sent + i}": f"harmless {self.sent + i}" for i in range(10)})
        self.sent += 10

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Write and search inside the block."""
        threads = [threading.Thread(target=self._repeat, args=(one,)) for one in (self.write, self.search)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _repeat(self, action: object) -> None:
        assert callable(action)
        while not self._over.wait(0.02):
            action()

    def close(self) -> None:
        self._http.close()
        self.door.__exit__(None, None, None)
