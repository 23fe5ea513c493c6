"""Updates and deletes of documents whose earlier vectors are searched."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.faults.conftest import NewStack
from tests.faults.door import Door
from tests.faults.history import Findings, check
from tests.faults.processes import wait_for
from tests.faults.stack import INDEX, Stack

NAMES = [f"d{number}" for number in range(20)]


def texts(words: str) -> dict[str, str]:
    return {name: f"{words} {name}" for name in NAMES}


def encoded(stack: Stack, log: Path, *without: str) -> None:
    """Start a worker that writes the texts that it encodes to a file, and wait until all documents are encoded."""
    stack.worker(*without, ENCODER_LOG=log, SLOW_SECONDS="0.1")
    assert stack.settle() == 0


def found(stack: Stack, url: str, word: str) -> int:
    """Count the documents that search by meaning finds, once it sees all writes."""
    stack.states()
    answer = httpx.get(
        f"{url}/v1/indexes/{INDEX}/search", params={"q": word, "mode": "sparse", "size": 100}, trust_env=False
    )
    return len(answer.raise_for_status().json()["hits"])


@pytest.mark.faults_slow
def test_documents_are_updated_while_no_worker_runs(
    new_stack: NewStack, tmp_path: Path, row: Callable[..., None]
) -> None:
    def missed(*without: str) -> int:
        stack = new_stack()
        _, url = stack.api(*without)
        with Door(url) as door:
            door.create_index()
            door.post(texts("heron"))
            worker = stack.worker()
            assert stack.settle() == 0
            worker.terminate()
            assert found(stack, url, "heron") == len(NAMES)
            door.post(texts("otter"))
            return len(NAMES) - found(stack, url, "heron")

    row(
        fault="documents are updated while no worker runs",
        promise="P2",
        protection="an update keeps the earlier vectors until the new ones are written",
        counted="documents that search by meaning misses",
        without=missed("reuse"),
        with_it=missed(),
    )


@pytest.mark.faults_slow
def test_the_same_text_is_written_twice(new_stack: NewStack, tmp_path: Path, row: Callable[..., None]) -> None:
    def encodings(*without: str) -> int:
        stack = new_stack()
        log = tmp_path / f"encoder-{len(without)}"
        _, url = stack.api(*without)
        with Door(url) as door:
            door.create_index()
            door.post(texts("heron"))
            encoded(stack, log)
            first = len(log.read_text().splitlines())
            assert first == len(NAMES)
            for _ in range(2):
                door.post(texts("heron"))
                assert stack.settle() == 0
            assert found(stack, url, "heron") == len(NAMES)
        return len(log.read_text().splitlines()) - first

    row(
        fault="the same texts are written three times",
        promise="P9",
        protection="a write of the stored text takes over its vectors",
        counted="documents encoded again",
        without=encodings("reuse"),
        with_it=encodings(),
    )


def overtaken(stack: Stack, log: Path, act: Callable[[Door], None], *without: str) -> Findings:
    """Update encoded documents, and act while a worker encodes the new texts. Return how the documents end."""
    _, url = stack.api()
    with Door(url) as door:
        door.create_index()
        door.post(texts("heron"))
        encoded(stack, log, *without)
        door.post(texts("slowpoison otter"))
        wait_for(lambda: "slowpoison" in log.read_text(), 60, "the updates are being encoded")
        act(door)
        assert stack.drain() == 0
        return check(door.history, stack.final())


@pytest.mark.faults_slow
def test_an_update_arrives_while_the_one_before_is_encoded(
    new_stack: NewStack, tmp_path: Path, row: Callable[..., None]
) -> None:
    def update(door: Door) -> None:
        door.post(texts("newt"))

    kept = overtaken(new_stack(), tmp_path / "with", update)
    lost = overtaken(new_stack(), tmp_path / "without", update, "versions")
    row(
        fault="documents are updated while a worker encodes the update before",
        promise="P2",
        protection="an encoding carries the version of its text",
        counted="wrong versions",
        without=len(lost.wrong),
        with_it=len(kept.broken),
    )


@pytest.mark.faults_slow
def test_a_document_is_deleted_while_its_earlier_vectors_serve(
    new_stack: NewStack, tmp_path: Path, row: Callable[..., None]
) -> None:
    def delete(door: Door) -> None:
        for name in NAMES:
            answer = door.delete(name)
            assert answer is not None
            assert answer.status_code == 204

    kept = overtaken(new_stack(), tmp_path / "with", delete)
    lost = overtaken(new_stack(), tmp_path / "without", delete, "versions")
    row(
        fault="documents are deleted while their earlier vectors serve and the new ones are made",
        promise="P3",
        protection="a tombstone has no vectors, and an encoding carries the version of its text",
        counted="deletes undone",
        without=len(lost.resurrected),
        with_it=len(kept.broken),
    )
