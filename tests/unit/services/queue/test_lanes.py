"""Tests of the lanes: which queue a message takes, and the order in which a worker empties them."""

from kombu.utils.scheduling import cycle_by_name

from indexer.celery_app import celery_configuration
from indexer.runtime import WorkerSettings
from services.queue.lanes import (
    INGEST_QUEUE,
    INTERACTIVE_BYTES,
    INTERACTIVE_DOCUMENTS,
    INTERACTIVE_PENDING,
    INTERACTIVE_TURNS,
    LOAD_LANES,
    LaneOrder,
    encode_queues,
    interactive_queue,
    is_interactive,
    is_load_queue,
    load_queue,
    queues_by_name,
)
from services.settings import Settings


def test_a_small_write_to_an_index_at_rest_is_interactive() -> None:
    assert is_interactive(INTERACTIVE_DOCUMENTS, INTERACTIVE_BYTES, INTERACTIVE_PENDING)
    assert not is_interactive(INTERACTIVE_DOCUMENTS + 1, 10, 0)
    assert not is_interactive(1, INTERACTIVE_BYTES + 1, 0)
    assert not is_interactive(1, 10, INTERACTIVE_PENDING + 1), "an index that is loaded one by one"


def test_an_index_has_one_load_lane_and_indexes_spread_over_all() -> None:
    lanes = {load_queue("e", f"index-{number}") for number in range(1000)}
    assert lanes == set(encode_queues("e")) - {interactive_queue("e")}
    assert len(lanes) == LOAD_LANES
    assert load_queue("e", "books") == load_queue("e", "books") != load_queue("f", "books")
    assert all(map(is_load_queue, lanes))
    assert not is_load_queue(interactive_queue("e"))
    assert not is_load_queue(INGEST_QUEUE)
    assert not is_load_queue("")


def test_a_worker_asks_the_interactive_lane_first_and_the_others_in_turn() -> None:
    order = cycle_by_name(
        celery_configuration(Settings(), WorkerSettings())["broker_transport_options"]["queue_order_strategy"]
    )()
    assert isinstance(order, LaneOrder)
    queues = [*encode_queues("e"), INGEST_QUEUE]
    order.update(queues)
    first = order.consume(len(queues))
    assert first[0] == interactive_queue("e")
    order.rotate(first[1])
    second = order.consume(len(queues))
    assert second[0] == interactive_queue("e")
    assert (second[1], second[-1]) == (first[2], first[1]), "a lane that was served comes last"
    order.rotate(interactive_queue("e"))
    assert order.consume(len(queues))[0] == interactive_queue("e"), "the interactive lane has no turns"
    assert sorted(order.consume(len(queues))) == sorted(queues)


def test_a_load_lane_gets_a_turn_though_the_interactive_lane_never_empties() -> None:
    queues = [*encode_queues("e"), INGEST_QUEUE]
    order = LaneOrder(list(queues))
    # every queue always has a message
    taken = [order.rotate(order.consume(len(queues))[0]) for _ in range(2 * (INTERACTIVE_TURNS + 1) * len(queues))]
    assert taken.count(interactive_queue("e")) == INTERACTIVE_TURNS * len(taken) // (INTERACTIVE_TURNS + 1)
    assert taken[:INTERACTIVE_TURNS] == [interactive_queue("e")] * INTERACTIVE_TURNS
    others = [queue for queue in taken if queue != interactive_queue("e")]
    assert set(others[: len(queues) - 1]) == set(queues) - {interactive_queue("e")}, "the others take turns"


def test_interactive_writes_wait_for_one_message_of_a_load() -> None:
    queues = [*encode_queues("e"), INGEST_QUEUE]
    order = LaneOrder(list(queues))
    for _ in range(INTERACTIVE_TURNS + 3):  # the load lanes are empty
        order.rotate(interactive_queue("e"))
    assert order.consume(len(queues))[0] != interactive_queue("e")
    order.rotate(load_queue("e", "books"))
    assert order.consume(len(queues))[0] == interactive_queue("e")


def test_the_load_lanes_are_reported_as_one() -> None:
    named = queues_by_name({"e"})
    assert list(named) == [INGEST_QUEUE, "sparsewell.encode.e", "sparsewell.encode.e.load"]
    assert sorted(queue for queues in named.values() for queue in queues) == sorted([INGEST_QUEUE, *encode_queues("e")])
