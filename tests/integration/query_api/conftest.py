"""Encoded documents for tests of searches, without a worker process."""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest
from kombu import Connection

from indexer.encode_task import run_encode
from indexer.runtime import Runtime
from indexer.settings import WorkerSettings
from services.contracts import EncodeMessage, encode_queue
from services.opensearch.generations import refresh_call
from services.settings import Settings


@pytest.fixture
def encode(settings: Settings) -> Iterator[Callable[[], None]]:
    """`encode()`: takes what waits in the queue and does with it what a worker's task does, in this process.

    Then searches find it: no test waits for a refresh. A worker process takes seconds to start; those have their
    tests in ../indexer, in e2e and in faults.
    """
    runtime = Runtime(settings, WorkerSettings())

    def take_all() -> None:
        with (
            Connection(settings.redis_url) as broker,
            closing(broker.SimpleQueue(encode_queue(settings.encoder), no_ack=True)) as queue,
            suppress(queue.Empty),
        ):
            while True:
                _, body, _ = queue.get_nowait().payload
                message = EncodeMessage.model_validate(body)
                run_encode(runtime, message, redelivered=False)
                runtime.search.send(refresh_call(runtime.names.physical(message.index, message.generation)))

    with closing(runtime.search):
        yield take_all
