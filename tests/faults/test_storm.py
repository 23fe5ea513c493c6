"""Many faults happen together, in an order that a seed decides.

FAULT_SEEDS="4 14" chooses other seeds than the default. The two default seeds, of nine faults each, cover all seventeen
kinds of fault.
"""

import os
import random
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.faults.door import Door
from tests.faults.history import Findings, check
from tests.faults.processes import OpenSearchProcess
from tests.faults.stack import Stack
from tests.faults.storm import Storm, Writer

SEEDS = [int(seed) for seed in os.environ.get("FAULT_SEEDS", "3 15").split()]
FAULTS = int(os.environ.get("FAULTS", "9"))


def weathered(stack: Stack, node: OpenSearchProcess, seed: int, *without: str) -> tuple[Findings, list[str]]:
    """Return the broken promises at the end, and the faults of the storm."""
    with closing(Storm(stack, node, random.Random(seed), without)) as storm, Door(storm.url, timeout=20) as door:
        door.create_index()
        with Writer(door, random.Random(seed)) as writer:
            writer.goes_on()
            storm.blow(FAULTS, writer.goes_on)
        if without:
            stack.drain()
        else:
            stack.settle(120)
        assert len(door.history.acknowledged) > 50
        return check(door.history, stack.last_look()), storm.done


@pytest.mark.faults_slow
@pytest.mark.timeout(900)
def test_a_random_schedule_of_all_faults(
    new_stack: Callable[..., Stack], new_node: Callable[..., OpenSearchProcess], row: Callable[..., None]
) -> None:
    node = new_node()
    times = {"opensearch_url": node.url, "opensearch_timeout": 5.0, "lease_seconds": 1.0}
    broken = 0
    for seed in SEEDS:
        kept, faults = weathered(new_stack(**times), node, seed)
        print(f"seed {seed}: {', '.join(faults)}; dead: {len(kept.dead)}")  # noqa: T201 (shown when it fails)
        for found in kept.broken:
            print(f"seed {seed}: {found}")  # noqa: T201
        broken += len(kept.broken)
    lost, _ = weathered(new_stack(**times), node, SEEDS[0], "late_acks", "versions")
    row(
        fault=f"random schedules of {FAULTS} faults each while documents are written, replaced and deleted",
        promise="P1 to P4",
        protection="all; the control's workers acknowledge early and write without versions, and nobody sweeps",
        counted="promises broken",
        without=len(lost.broken),
        with_it=broken,
    )
