"""Run a seeded schedule of faults on one installation while a client writes. Equal seeds give equal schedules."""

import random
import threading
from collections.abc import Callable, Sequence
from signal import SIGKILL
from time import monotonic, sleep

from indexer.reindex.run import Reindexing
from tests.faults.door import Door
from tests.faults.processes import OpenSearchProcess, Running, wait_for
from tests.faults.proxy import Proxy
from tests.faults.reindex_steps import BEFORE_THE_SWAP, DECIDED
from tests.faults.stack import HERE, INDEX, Stack

DOCUMENTS = 120
POISONS = ("killpoison", "nanpoison", "raisepoison")


class Writer:
    """Put, replace and delete documents with explicit versions, some of them stale, until stopped.

    Encoding takes about as long as sending, so faults find busy workers and messages in the queue.
    """

    def __init__(self, door: Door, chance: random.Random) -> None:
        self._door, self._chance = door, chance
        self._versions = dict.fromkeys((f"d{i}" for i in range(DOCUMENTS)), 0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer")
        self.sent = 0

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def goes_on(self) -> None:
        """Return once the writer has finished a request that it began after this call."""
        reached = self.sent + 2
        wait_for(lambda: self.sent >= reached, 60, "the writer goes on")

    def _run(self) -> None:
        while not self._over.wait(0.05):
            self._send()
            self.sent += 1

    def _send(self) -> None:
        chance = self._chance
        one = chance.choice(list(self._versions))
        kind = chance.random()
        if kind < 0.1:
            self._door.delete(one, version=self._next(one))
        elif kind < 0.2 and self._versions[one] > 1:
            stale = chance.randrange(1, self._versions[one])
            self._door.post({one: f"stale {one} {stale} {self.sent}"}, version=stale)
        elif kind < 0.23:
            self._door.post({one: f"{chance.choice(POISONS)} {one} {self.sent}"}, version=self._next(one))
        else:
            several = chance.sample(list(self._versions), 8)
            version = max(map(self._next, several))
            self._versions.update(dict.fromkeys(several, version))
            self._door.post({one: f"slowpoison words of {one} as of {version}" for one in several}, version=version)

    def _next(self, one: str) -> int:
        self._versions[one] += 1
        return self._versions[one]


class Storm:
    """The faults. Each breaks the system and repairs it, except a pause, which lasts until after the next fault."""

    def __init__(self, stack: Stack, node: OpenSearchProcess, chance: random.Random, without: Sequence[str]) -> None:
        self._stack, self._node, self._chance, self._without = stack, node, chance, without
        self.proxy = Proxy(node.port)
        self._api, self.url = stack.api(opensearch_url=self.proxy.url)
        self._workers = [self._worker() for _ in range(2)]
        self._sweeper = None if without else stack.sweeper()
        self._paused: list[Running] = []
        self.done: list[str] = []

    def blow(self, faults: int, between: Callable[[], None]) -> None:
        """Cause the given number of faults with a pause of `between` after each."""
        everything = [
            self.worker_killed, self.pool_process_killed, self.worker_paused, self.worker_restarted,
            self.api_killed, self.api_restarted, self.sweeper_killed,
            self.redis_killed, self.redis_emptied, self.redis_away, self.redis_full,
            self.node_killed, self.node_paused, self.answers_cut, self.connections_cut, self.connections_held,
            self.reindex_killed,
        ]  # fmt: skip
        # use each fault once before any repeats, so that a few seeds cover all of them
        deck: list[Callable[[], None]] = []
        for _ in range(faults):
            deck = deck or self._chance.sample(everything, len(everything))
            fault = deck.pop()
            began = monotonic()
            resumed, self._paused = self._paused, []
            fault()
            for worker in resumed:
                worker.resume()
            between()
            self.done.append(f"{fault.__name__} ({monotonic() - began:.0f} s)")
        self.heal()

    def heal(self) -> None:
        """Make everything run again."""
        for worker in self._paused:
            worker.resume()
        self._workers = [worker if worker.alive else self._worker() for worker in self._workers]

    def close(self) -> None:
        self.proxy.close()

    def _worker(self) -> Running:
        return self._stack.worker(*self._without, SLOW_SECONDS=0.02)

    def _any_worker(self) -> int:
        return self._chance.randrange(len(self._workers))

    def worker_killed(self) -> None:
        at = self._any_worker()
        self._workers[at].kill()
        self._workers[at] = self._worker()

    def pool_process_killed(self) -> None:
        for child in self._workers[self._any_worker()].children[:1]:
            child.send_signal(SIGKILL)

    def worker_paused(self) -> None:
        worker = self._workers[self._any_worker()]
        worker.pause()
        self._paused.append(worker)

    def worker_restarted(self) -> None:
        at = self._any_worker()
        if self._workers[at].alive:
            self._workers[at].terminate()
        self._workers[at] = self._worker()

    def api_killed(self) -> None:
        self._api.kill()
        self._start_api()

    def api_restarted(self) -> None:
        self._api.terminate()
        self._start_api()

    def _start_api(self) -> None:
        self._api, _ = self._stack.api(port=int(self.url.rpartition(":")[2]), opensearch_url=self.proxy.url)

    def sweeper_killed(self) -> None:
        if self._sweeper is not None:
            self._sweeper.kill()
            self._sweeper = self._stack.sweeper()

    def reindex_killed(self) -> None:
        """Begin a new generation, kill the command at one of its steps, and run the same command again."""
        if self._without:
            return  # test_reindex.py has the control of this fault
        work = Reindexing(self._stack.search, self._stack.settings, INDEX)
        if (record := work.load()) and record.step == "swapped":
            work.drop_old()
        step = self._chance.choice([*BEFORE_THE_SWAP, *DECIDED])
        changes = ("reindex", INDEX, "--window", str(self._chance.randrange(16, 64)), "--overlap", "4", "--unchecked")
        for program in ((str(HERE / "killed_reindex.py"), step), ("-m", "cli.main")):
            command = self._stack.run("reindex", *program, *changes, ready=lambda _: True)
            wait_for(lambda command=command: not command.alive, 300, f"the reindexing has ended ({step})")  # type: ignore[misc]
        assert "is searched" in command.log, command.log
        self._stack.physical = work.active().physical

    def redis_killed(self) -> None:
        self._stack.redis.kill()
        self._stack.redis.start()

    def redis_emptied(self) -> None:
        self._stack.redis.kill()
        self._stack.redis.delete_data()
        self._stack.redis.start()

    def redis_away(self) -> None:
        self._stack.redis.kill()
        sleep(self._chance.uniform(1, 4))  # the time away is the fault itself
        self._stack.redis.start()

    def redis_full(self) -> None:
        self._stack.redis.limit(1)
        sleep(self._chance.uniform(1, 7))
        self._stack.redis.limit(0)

    def node_killed(self) -> None:
        self._node.kill()
        self._node.start()

    def node_paused(self) -> None:
        self._node.process.pause()
        sleep(self._chance.uniform(1, 7))
        self._node.process.resume()

    def answers_cut(self) -> None:
        before = self.proxy.cuts
        self.proxy.cut_answers(b"/_bulk", times=3)
        wait_for(lambda: self.proxy.cuts > before, 60, "an answer to a write was cut off")

    def connections_cut(self) -> None:
        self.proxy.cut_all()

    def connections_held(self) -> None:
        self.proxy.hold()
        sleep(self._chance.uniform(1, 7))
        self.proxy.release()
