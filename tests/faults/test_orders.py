"""Writes arrive in another order, twice, or long after a delete."""

import itertools
import random
from collections.abc import Callable, Sequence

import orjson

from models.encoder import Encoder
from models.registry import load_encoder
from services.errors import Conflict
from services.index_spec import Generation, IndexNames
from services.opensearch.bulk import Write, write_bulk
from services.opensearch.client import Call
from services.opensearch.generations import read_generation, refresh_call, resolve_alias_call
from services.opensearch.journal import encoded_write, get_documents_call, read_stored_documents
from services.opensearch.stored_document import EncodedWindow, StoredDocument
from tests.faults.door import Door
from tests.faults.history import Findings, History, Written, check
from tests.faults.processes import wait_for
from tests.faults.stack import INDEX, Stack

NewStack = Callable[..., Stack]
RowOf = Callable[..., None]

VERSIONS = range(1, 6)
SEED = 7


def deliveries() -> dict[str, list[int]]:
    """Return by document every order of five versions (120), each with two versions delivered twice."""
    chance = random.Random(SEED)
    found = {}
    for at, order in enumerate(itertools.permutations(VERSIONS)):
        delivered = list(order)
        for again in chance.sample(order, 2):
            delivered.insert(chance.randrange(delivered.index(again) + 1, len(delivered) + 1), again)
        found[f"d{at}"] = delivered
    return found


def text(one: str, version: int) -> str:
    return f"document {one} as of version {version}"


def generation_of(stack: Stack) -> Generation:
    return read_generation(stack.search.send(resolve_alias_call(IndexNames(stack.settings.index_prefix), INDEX)), INDEX)


def plainly(stack: Stack, operations: Sequence[tuple[str, dict[str, object]]]) -> None:
    """Write as the control does: index requests without versions, so the last write wins."""
    lines = b"".join(
        orjson.dumps({"index": {"_id": one}}) + b"\n" + orjson.dumps(source) + b"\n" for one, source in operations
    )
    answer = stack.search.send(Call("POST", f"/{stack.physical}/_bulk", lines, {"refresh": "true"}, ndjson=True))
    assert not answer["errors"]


def test_every_order_of_five_versions_at_the_rest_door(new_stack: NewStack, row: RowOf) -> None:
    stack = new_stack()
    orders = deliveries()
    _, url = stack.api()
    with Door(url) as door:
        door.create_index()
        for step in range(7):
            by_version = {v: {one: text(one, v) for one, d in orders.items() if d[step] == v} for v in VERSIONS}
            for version, texts in by_version.items():
                if texts:
                    door.post(texts, version=version)
        assert len({written for written in door.history.acknowledged if written.order == 5}) == len(orders)
        stack.worker()
        stack.sweeper()
        stack.settle()
        kept = check(door.history, stack.final())
    # the control: the same deliveries, each of which overwrites the previous one
    for step in range(7):
        plainly(stack, [(one, {"text": text(one, d[step]), "state": "encoded"}) for one, d in orders.items()])
    wrong = [found for found in check(door.history, stack.final()).wrong if "is there" in found]
    assert kept.dead == []
    row(
        fault="every order of five versions of a document, with duplicates, at the REST door",
        promise="P2",
        protection="external versions: the highest wins",
        counted="wrong versions",
        without=len(wrong),
        with_it=len(kept.broken),
    )


def test_every_order_of_late_encodings(new_stack: NewStack, row: RowOf) -> None:
    """Five workers hold the encodings of five versions of each document and write them in every order."""
    stack = new_stack()
    orders = deliveries()
    history = History(INDEX)
    _, url = stack.api()
    held: dict[tuple[str, int], Write] = {}
    with Door(url, history=history) as door:
        door.create_index()
        encoder, generation = load_encoder(stack.settings.encoder), generation_of(stack)
        for version in VERSIONS:
            door.post({one: text(one, version) for one in orders}, version=version)
            for stored in read_stored_documents(stack.search.send(get_documents_call(stack.physical, list(orders)))):
                held[stored.id, version] = as_a_worker_would(encoder, generation, stored)
    for step in range(7):
        write_bulk(stack.search, [held[one, delivered[step]] for one, delivered in orders.items()], 2**20, 10)
    kept = check(history, stack.final())
    for step in range(7):
        plainly(stack, [(one, held[one, delivered[step]].source) for one, delivered in orders.items()])
    lost = check(history, stack.final())
    assert kept.dead == []
    row(
        fault="late encodings of five versions of a document, in every order, with duplicates",
        promise="P2",
        protection="an encoding carries the version of its text",
        counted="wrong versions",
        without=len(lost.wrong),
        with_it=len(kept.broken),
    )


def as_a_worker_would(encoder: Encoder, generation: Generation, stored: StoredDocument) -> Write:
    """Return the write that a worker makes of a document that it has read."""
    windows = encoder.windows(stored.source["text"], generation.window.pieces, generation.window.overlap)
    vectors = encoder.encode(windows)
    spans = zip(windows, vectors, strict=True)
    return encoded_write(generation, stored, [EncodedWindow(w.start, w.end, vector) for w, vector in spans])


def test_a_stale_update_long_after_a_delete(new_stack: NewStack, row: RowOf) -> None:
    """OpenSearch forgets the version of a deleted document after index.gc_deletes (here 100 ms, 60 s by default)."""
    stack = new_stack()
    _, url = stack.api()
    names = [f"d{i}" for i in range(20)]
    with Door(url) as door:
        door.create_index()
        stack.search.send(Call("PUT", f"/{stack.physical}/_settings", orjson.dumps({"index.gc_deletes": "100ms"})))
        door.post({one: text(one, 1) for one in names}, version=1)
        for one in names:
            door.delete(one, version=2)
        # The control in the same index uses OpenSearch's deletes. Once OpenSearch forgets one of them, it forgets all.
        undone = stale_after_hard_deletes(stack, [f"hard{i}" for i in range(20)])
        for one in names:
            door.post({one: text(one, 1)}, version=1)
        assert [code for _, code in door.history.refused] == ["stale_version"] * len(names)
        kept = check(door.history, stack.final())
    row(
        fault="a stale update long after a delete, beyond index.gc_deletes",
        promise="P3",
        protection="a delete is a tombstone with a version",
        counted="deletes undone",
        without=len(undone.resurrected),
        with_it=len(kept.broken),
    )


def stale_after_hard_deletes(stack: Stack, names: Sequence[str]) -> Findings:
    """Write documents at version 1, delete them at version 2, and write version 1 again until OpenSearch accepts it."""
    told = History(INDEX)

    def send(method: str, one: str, version: int, source: dict[str, str] | None = None) -> None:
        body = None if source is None else orjson.dumps(source)
        params = {"version": version, "version_type": "external"}
        stack.search.send(Call(method, f"/{stack.physical}/_doc/{one}", body, params))

    old = {"text": "old", "state": "encoded"}
    for one in names:
        send("PUT", one, 1, old)
        send("DELETE", one, 2)
        told.acknowledge(Written(one, 1, "old"), Written(one, 2, None))

    def taken(one: str) -> bool:
        stack.search.send(refresh_call(stack.physical))
        try:
            send("PUT", one, 1, old)
        except Conflict:
            return False
        return True

    for one in names:
        wait_for(lambda one=one: taken(one), 60, "OpenSearch has forgotten the delete")  # type: ignore[misc]
    return check(told, stack.final())
