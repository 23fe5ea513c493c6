"""Workers that are killed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from faults.door import Door
from faults.history import Findings, check
from faults.processes import wait_for
from faults.stack import Stack

NewStack = Callable[..., Stack]
RowOf = Callable[..., None]


def killed_in_the_middle(stack: Stack, log: Path, *without: str) -> Findings:
    """Forty-five documents, five of them slow; the worker is killed while it encodes, another one takes its place."""
    _, url = stack.api()
    worker = stack.worker(*without, ENCODER_LOG=log)
    with Door(url) as door:
        door.create_index()
        texts = {f"s{i}": f"slowpoison {i}" for i in range(5)} | {f"d{i}": f"harmless {i}" for i in range(40)}
        door.post(texts)
        wait_for(log.exists, 30, "the worker has begun")
        worker.kill()
        assert stack.pending()
        stack.worker(*without, SLOW_SECONDS=0.05)
        if without:
            stack.drain()
        else:
            stack.sweeper()
            stack.settle()
        return check(door.history, stack.final())


@pytest.mark.faults_slow
def test_a_worker_that_is_killed_in_the_middle(new_stack: NewStack, tmp_path: Path, row: RowOf) -> None:
    kept = killed_in_the_middle(new_stack(), tmp_path / "with")
    assert kept.dead == []
    lost = killed_in_the_middle(new_stack(), tmp_path / "without", "late_acks")
    row(
        fault="kill -9 of a worker in the middle of a message",
        promise="P1",
        protection="late acknowledgement, sweeper",
        counted="documents lost",
        without=len(lost.lost),
        with_it=len(kept.broken),
    )
