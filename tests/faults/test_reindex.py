"""A reindexing is killed at each of its steps while clients write and delete."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from indexer.reindex.plan import GenerationChanges, plan_generation
from indexer.reindex.run import Reindexing
from services.encoders.manifest import read_manifest, resolve_model_directory
from services.index_spec import IndexNames
from services.opensearch.generations import create_generation_call
from tests.faults.door import Door
from tests.faults.history import Findings, check
from tests.faults.processes import Running, wait_for
from tests.faults.reindex_steps import BEFORE_THE_SWAP, DECIDED
from tests.faults.stack import HERE, INDEX, Stack
from tests.faults.without.following import copy_and_swap

NewStack = Callable[..., Stack]
RowOf = Callable[..., None]

# Another window size, so that every document is encoded again.
OPTIONS = ("reindex", INDEX, "--window", "16", "--overlap", "4", "--unchecked")


@contextmanager
def writing(door: Door) -> Iterator[None]:
    """Replace, add and delete documents continuously, one after the other."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        # a short pause, so that one worker keeps up
        while not stop.wait(0.02):
            number += 1
            one = f"d{number % 60}" if number % 3 else f"new{number}"
            if number % 7 == 0:
                door.delete(one, version=None) if one in door.history.ids else None
            else:
                door.post({one: f"written while reindexing {number}"})

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)


def grows(door: Door) -> Callable[[], bool]:
    """Return whether at least ten more writes were acknowledged since the call."""
    before = len(door.history.acknowledged)
    return lambda: len(door.history.acknowledged) > before + 10


def command(stack: Stack, *arguments: str) -> Running:
    """Run a command until it ends for any reason."""
    running = stack.run("reindex", *arguments, ready=lambda _: True)
    wait_for(lambda: not running.alive, 90, f"the command has ended: {arguments}")
    return running


def killed_at(stack: Stack, step: str, *, again: bool) -> tuple[Findings, int]:
    """Return the findings and the unacknowledged writes. With `again` the command runs once more."""
    _, url = stack.api()
    stack.worker()
    stack.sweeper()
    work = Reindexing(stack.search, stack.settings, INDEX)
    with Door(url) as door:
        door.create_index()
        door.post({f"d{i}": f"the first text of {i}" for i in range(60)})
        stack.settle()
        with writing(door):
            wait_for(grows(door), 60, "writes go on")
            killed = command(stack, str(HERE / "killed_reindex.py"), step, *OPTIONS)
            assert "Error" not in killed.log, killed.log
            assert "is searched" not in killed.log, "it was not killed"
            if step in BEFORE_THE_SWAP:
                wait_for(grows(door), 60, "writes go on after the kill")
            if again:
                done = command(stack, "-m", "cli.main", *OPTIONS)
                assert "is searched" in done.log, done.log
            else:
                wait_for(lambda: (record := work.load()) and record.step == "swapped", 60, "the sweeper has finished")
            wait_for(grows(door), 60, "writes go on after the swap")
        assert work.active().number == 2
        stack.physical = work.active().physical
        stack.settle()
        return check(door.history, stack.final()), len(door.history.unanswered)


def copied_and_swapped(stack: Stack) -> Findings:
    """Run the control: copy once, then swap the alias."""
    _, url = stack.api()
    stack.worker()
    stack.sweeper()
    work = Reindexing(stack.search, stack.settings, INDEX)
    with Door(url) as door:
        door.create_index()
        door.post({f"d{i}": f"the first text of {i}" for i in range(60)})
        stack.settle()
        old = work.active()
        manifest = read_manifest(resolve_model_directory(stack.settings.encoder))
        new = plan_generation(
            IndexNames(stack.settings.index_prefix),
            old,
            2,
            GenerationChanges(window_pieces=16, window_overlap=4),
            manifest,
        )
        stack.search.send(create_generation_call(new, stack.settings, []))
        with writing(door):
            wait_for(grows(door), 60, "writes go on")
            copy_and_swap(stack.search, stack.settings, old, new)
            wait_for(grows(door), 60, "writes go on after the swap")
        stack.physical = new.physical
        stack.settle()
        return check(door.history, stack.final())


@pytest.mark.faults_slow
@pytest.mark.timeout(600)
def test_killed_at_each_step_under_writes(new_stack: NewStack, row: RowOf) -> None:
    broken: list[str] = []
    unanswered = 0
    for step in (*BEFORE_THE_SWAP, *DECIDED):
        found, more = killed_at(new_stack(), step, again=True)
        broken += [f"{step}: {one}" for one in found.broken]
        unanswered += more
    assert broken == []
    assert unanswered == 0, "a client was left without an answer"
    lost = copied_and_swapped(new_stack())
    row(
        fault="reindexing killed at each of its steps, under writes",
        promise="P8",
        protection="the old generation's operations are followed to the last one",
        counted="documents lost or wrong",
        without=len(lost.broken),
        with_it=len(broken),
    )


@pytest.mark.faults_slow
def test_a_decided_swap_whose_command_is_gone_is_finished_by_the_sweeper(new_stack: NewStack) -> None:
    found, unanswered = killed_at(new_stack(), "blocked", again=False)
    assert (found.broken, unanswered) == ([], 0)
