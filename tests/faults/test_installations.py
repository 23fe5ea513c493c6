"""A Redis that two installations use by mistake."""

from collections.abc import Callable
from contextlib import closing

import pytest

from tests.faults.conftest import NewStack
from tests.faults.door import Door
from tests.faults.processes import RedisProcess, wait_for
from tests.faults.stack import HERE, TIMES

DOCUMENTS = 40


@pytest.mark.faults_slow
def test_a_worker_of_another_installation_takes_no_messages(
    new_stack: NewStack, new_redis: Callable[..., RedisProcess], row: Callable[..., None]
) -> None:
    """The worker of a test environment starts with production's REDIS_URL. Production has no sweeper here."""

    def pending(*without: str) -> int:
        redis = new_redis()
        production, testing = new_stack(redis=redis), new_stack(redis=redis)
        _, url = production.api()
        with Door(url) as door:
            door.create_index()
            assert door.post({f"d{n}": f"harmless {n}" for n in range(DOCUMENTS)}).json()["queued"] is True
        owed = production.owed()
        assert owed
        program = (str(HERE / "without" / "worker.py"), *without) if without else ("-m", "cli.main", "worker")
        foreign = testing.run("worker", *program, ready=lambda worker: "ready." in worker.log, may_end=True, **TIMES)
        if without:
            wait_for(lambda: not production.owed(), 60, "the other installation took the messages")
        else:
            wait_for(lambda: not foreign.alive, 60, "the worker of the other installation has ended")
            assert "belongs to another installation" in foreign.log
            assert production.owed() == owed
        foreign.close()
        production.worker()
        return production.drain()

    row(
        fault="a worker of another installation is started with this Redis",
        promise="P1",
        protection="Redis is marked with its installation; a process of another one refuses to start",
        counted="documents that wait for the sweeper",
        without=pending("claim"),
        with_it=pending(),
    )


@pytest.mark.faults_slow
def test_a_redis_that_lost_its_mark_is_marked_again(new_stack: NewStack) -> None:
    stack = new_stack()
    stack.sweeper()
    with closing(stack.broker()) as broker:
        wait_for(lambda: broker.get("sparsewell:installation"), 30, "the sweeper has marked it")
        broker.flushdb()
        wait_for(lambda: broker.get("sparsewell:installation"), 30, "the sweeper has marked it again")
