"""Redis is killed, emptied, stopped or full. The promise of a 202 does not depend on it."""

from collections.abc import Callable
from contextlib import closing
from time import monotonic

import pytest

from services.queue.messages import IngestMessage, Publisher
from tests.faults.door import Door
from tests.faults.history import Findings, History, Written, check
from tests.faults.processes import RedisProcess, wait_for
from tests.faults.stack import INDEX, Stack

NewStack = Callable[..., Stack]
NewRedis = Callable[..., RedisProcess]
RowOf = Callable[..., None]


def journalled(stack: Stack, fault: Callable[[], object]) -> Findings:
    """Acknowledge two hundred documents. The fault comes before any worker starts."""
    _, url = stack.api()
    with Door(url) as door:
        door.create_index()
        for at in range(0, 200, 20):
            door.post({f"d{i}": f"text {i}" for i in range(at, at + 20)})
        assert len(door.history.acknowledged) == 200
        fault()
        stack.worker()
        stack.sweeper()
        stack.settle()
        return check(door.history, stack.last_look())


def only_queued(stack: Stack, fault: Callable[[], object], *, late: bool = True) -> Findings:
    """The control: acknowledge the same documents as soon as Redis has them.

    `late` starts the worker after the fault.
    """
    _, url = stack.api()
    history = History(INDEX)
    with Door(url) as door, closing(Publisher(stack.settings.redis_url)) as publisher:
        door.create_index()
        for at in range(0, 200, 20):
            texts = {f"d{i}": f"text {i}" for i in range(at, at + 20)}
            publisher.ingest(
                IngestMessage(index=INDEX, documents=tuple({"id": one, "text": text} for one, text in texts.items()))
            )
            history.acknowledge(*(Written(one, 1, text) for one, text in texts.items()))
        fault()
        if late:
            stack.worker()
        stack.sweeper()
        stack.drain()
        stack.settle()
        return check(history, stack.last_look())


@pytest.mark.faults_slow
@pytest.mark.parametrize(
    ("fault", "append_only", "emptied", "control_append_only"),
    [
        ("kill -9 of a Redis that writes its append-only file", True, False, False),
        ("kill -9 of a Redis without a file", False, False, False),
        ("kill -9 of Redis, its data directory deleted", True, True, True),
    ],
)
def test_a_redis_that_dies(
    new_stack: NewStack, new_redis: NewRedis, row: RowOf,
    fault: str, append_only: bool, emptied: bool, control_append_only: bool,
) -> None:  # fmt: skip
    def dies(redis: RedisProcess) -> None:
        redis.kill()
        if emptied:
            redis.delete_data()
        redis.start()

    def tried(scenario: Callable[[Stack, Callable[[], object]], Findings], append_only: bool) -> Findings:
        redis = new_redis(append_only=append_only)
        return scenario(new_stack(redis=redis), lambda: dies(redis))

    kept, lost = tried(journalled, append_only), tried(only_queued, control_append_only)
    assert kept.dead == []
    row(
        fault=fault,
        promise="P1",
        protection="journalled in OpenSearch before the 202, sweeper; the control acknowledges what is queued"
        + ("" if control_append_only else ", without a file"),
        counted="documents lost",
        without=len(lost.lost),
        with_it=len(kept.broken),
    )


@pytest.mark.faults_slow
def test_the_queue_s_own_door_is_as_safe_as_redis_is(new_stack: NewStack, new_redis: NewRedis) -> None:
    """docs/queue.md promises it: with the append-only file, Redis keeps all accepted messages after a SIGKILL."""
    redis = new_redis(append_only=True)

    def dies() -> None:
        redis.kill()
        redis.start()

    assert only_queued(new_stack(redis=redis), dies).broken == []


def two_stacks(new_stack: NewStack, redis: RedisProcess) -> tuple[Stack, Stack]:
    """Create two installations on one Redis. The second has no sweeper and is the control of the same fault."""
    first = new_stack(redis=redis)
    second = new_stack(redis=redis, redis_url=redis.database(1))
    first.sweeper()
    for stack in (first, second):
        stack.worker()
    return first, second


def posted_while(doors: list[Door], is_wrong: Callable[[int], bool]) -> int:
    """Post to all APIs while the condition holds. Assert a 202 for each post and a response to each search.

    Return the number of posts.
    """
    at = 0
    while is_wrong(at):
        for door in doors:
            answer = door.post({f"d{at}": f"unmistakable {at}", "always": f"the same again {at}"})
            assert answer is not None
            assert (answer.status_code, answer.json()["queued"]) == (202, False)
            # P6: a search needs no Redis
            found = door.client.get(f"/v1/indexes/{INDEX}/search", params={"q": "the same again"})
            assert found.status_code == 200
        at += 1
    return at


@pytest.mark.faults_slow
def test_a_redis_that_is_away_for_half_a_minute(new_stack: NewStack, new_redis: NewRedis, row: RowOf) -> None:
    redis = new_redis()
    kept_by, lost_by = two_stacks(new_stack, redis)
    with Door(kept_by.api()[1]) as kept_door, Door(lost_by.api()[1]) as lost_door:
        for door in (kept_door, lost_door):
            door.create_index()
        redis.kill()
        end = monotonic() + 30
        assert posted_while([kept_door, lost_door], lambda _: monotonic() < end) > 5
        redis.start()
        kept_by.settle()
        lost_by.drain()
        kept = check(kept_door.history, kept_by.final())
        lost = check(lost_door.history, lost_by.final())
    assert kept.dead == []
    row(
        fault="Redis away for 30 s while documents come",
        promise="P1",
        protection="journalled before the 202; the sweeper enqueues what has no message",
        counted="documents lost",
        without=len(lost.lost),
        with_it=len(kept.broken),
    )


@pytest.mark.faults_slow
def test_a_redis_that_is_full(new_stack: NewStack, new_redis: NewRedis, row: RowOf) -> None:
    redis = new_redis()
    kept_by, lost_by = two_stacks(new_stack, redis)
    with Door(kept_by.api()[1]) as kept_door, Door(lost_by.api()[1]) as lost_door:
        for door in (kept_door, lost_door):
            door.create_index()
        redis.limit(1)
        posted_while([kept_door, lost_door], lambda at: at < 10)
        redis.limit(0)
        kept_by.settle()
        lost_by.drain()
        kept = check(kept_door.history, kept_by.final())
        lost = check(lost_door.history, lost_by.final())
    assert kept.dead == []
    row(
        fault="Redis full (maxmemory, noeviction) while documents come",
        promise="P1",
        protection="journalled before the 202; the sweeper enqueues what has no message",
        counted="documents lost",
        without=len(lost.lost),
        with_it=len(kept.broken),
    )


@pytest.mark.faults_slow
def test_a_worker_lives_on_with_a_full_redis_and_loses_no_message_of_it(
    new_stack: NewStack, new_redis: NewRedis, row: RowOf
) -> None:
    """An ingest queue has the only copy of its messages, so a worker must not forget a message that it takes."""

    def taken_from_a_full_one(*without: str) -> Findings:
        redis = new_redis()
        stack = new_stack(redis=redis)
        worker = stack.worker(*without)
        worker.pause()

        def full_for_a_while() -> None:
            redis.limit(1)
            worker.resume()
            # (every five seconds a write looks for messages of dead workers)
            wait_for(lambda: worker.log.count("redis_full") >= 3 or not worker.alive, 60, "the worker has noticed")
            redis.limit(0)
            assert without or worker.alive

        return only_queued(stack, full_for_a_while, late=bool(without))

    kept, lost = taken_from_a_full_one(), taken_from_a_full_one("transport")
    assert kept.dead == []
    row(
        fault="Redis full while a worker takes messages from it",
        promise="P1",
        protection="a worker goes on and keeps what it took until it is done",
        counted="documents lost",
        without=len(lost.lost),
        with_it=len(kept.broken),
    )
