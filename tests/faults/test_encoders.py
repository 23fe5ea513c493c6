"""Encoders return invalid vectors or raise."""

from collections.abc import Callable

import pytest

from tests.faults.door import Door
from tests.faults.history import check
from tests.faults.stack import Stack

POISONS = {
    "nanpoison": ("an encoder that gives NaN", "bad_vector"),
    "infpoison": ("an encoder that gives an infinite weight", "bad_vector"),
    "negativepoison": ("an encoder that gives a negative weight", "bad_vector"),
    "manypoison": ("an encoder that gives a weight for every piece there is", "too_many_weights"),
    "raisepoison": ("an encoder that raises", "encoding_failed"),
}
NEIGHBOURS = 10


def dead_after(stack: Stack, *without: str) -> dict[str, tuple[list[str], int]]:
    """Send a message for each failure, with the failing document and healthy neighbours.

    Return by failure the reason of the document itself, and how many neighbours died with it.
    """
    _, url = stack.api()
    stack.worker(*without)
    stack.sweeper()
    with Door(url) as door:
        door.create_index()
        for word in POISONS:
            door.post({f"{word}-{i}": f"{word if i == 3 else 'healthy'} {i} {word[0]}" for i in range(NEIGHBOURS + 1)})
        assert stack.settle(90) == 0
        findings = check(door.history, stack.last_look())
    assert findings.broken == []
    return {
        word: (
            [one for one in findings.dead if one.startswith(f"{word}-3:")],
            sum(one.startswith(f"{word}-") and not one.startswith(f"{word}-3:") for one in findings.dead),
        )
        for word in POISONS
    }


@pytest.mark.faults_slow
def test_what_an_encoder_may_do_to_one_document_harms_no_other(
    new_stack: Callable[..., Stack], row: Callable[..., None]
) -> None:
    kept = dead_after(new_stack())
    assert {word: sentence for word, (sentence, _) in kept.items()} == {
        word: [f"{word}-3: {code}"] for word, (_, code) in POISONS.items()
    }
    harmed = dead_after(new_stack(), "isolation")
    for word, (fault, _) in POISONS.items():
        row(
            fault=fault,
            promise="P4",
            protection="each document is judged by itself; when a run fails, each is encoded alone",
            counted="healthy neighbours dead",
            without=harmed[word][1],
            with_it=kept[word][1],
        )
