"""Run `sparsewell reindex` and kill it at a step: `killed_reindex.py STEP ARGUMENT ...`

planned      the plan is recorded, the new generation does not exist
made         the new generation exists, nothing is copied
carrying     a page is copied, but not recorded
decided      the record says "swapping", the alias points to the old generation
blocked      the old generation is read-only, its last writes are not copied
drained      everything is copied, the alias points to the old generation
swapped      the alias points to the new generation, the record does not say that the reindexing is done
"""

import os
import signal
import sys
from typing import Any

from cli.main import app
from indexer.reindex import follower, run


def die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def after(module: Any, name: str) -> None:
    """Exit by SIGKILL once the function has returned."""
    whole = getattr(module, name)

    def then_die(*arguments: Any, **named: Any) -> Any:
        whole(*arguments, **named)
        die()

    setattr(module, name, then_die)


def after_sending(builder: str) -> None:
    """Exit by SIGKILL once OpenSearch has answered the call that `run.builder` builds."""
    build = getattr(run, builder)
    sent: list[Any] = []

    def remember(*arguments: Any) -> Any:
        sent.append(build(*arguments))
        return sent[-1]

    setattr(run, builder, remember)
    finish = run.finish_swap

    def finish_and_watch(one: follower.Follower) -> None:
        send = one.search.send

        def send_and_die(call: Any) -> Any:
            answer = send(call)
            return die() if call in sent else answer

        one.search.send = send_and_die  # type: ignore[method-assign]
        finish(one)

    run.finish_swap = finish_and_watch


STEPS = {
    "planned": lambda: setattr(run.Reindexing, "make_target", die),
    "made": lambda: setattr(follower.Follower, "catch_up", die),
    "carrying": lambda: after(follower.Follower, "_copy"),
    "decided": lambda: setattr(run, "finish_swap", die),
    "swapped": lambda: after_sending("swap_alias_call"),
    "blocked": lambda: after_sending("block_writes_call"),
    "drained": lambda: after(follower.Follower, "drain"),
}

if __name__ == "__main__":
    STEPS[sys.argv[1]]()
    app(sys.argv[2:], standalone_mode=True)
