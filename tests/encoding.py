"""Do the work of a worker on the messages of a queue, in the process of the test."""

from collections.abc import Callable
from contextlib import closing, suppress

from kombu import Connection
from redis import Redis

from indexer.encode_task import run_encode
from indexer.runtime import Runtime, WorkerSettings
from services.opensearch.generations import refresh_call
from services.queue.lanes import encode_queues
from services.queue.messages import EncodeMessage
from services.settings import Settings


def encoding(settings: Settings) -> Callable[[], None]:
    """Return a function that takes every message of the encoder's queues and encodes its documents.

    Searches find the documents at once, so no test waits for a refresh. A worker process takes seconds to start; its
    tests are in integration/indexer, e2e and faults.
    """

    def take_all() -> None:
        # (a kept journal would remember an index that was deleted and created again)
        runtime = Runtime(settings, WorkerSettings())
        with (
            closing(runtime.search),
            Connection(settings.redis_url) as broker,
            Redis.from_url(settings.redis_url) as lengths,
        ):
            for name in encode_queues(settings.encoder):
                if not lengths.llen(name):
                    continue
                with closing(broker.SimpleQueue(name, no_ack=True)) as queue, suppress(queue.Empty):
                    while True:
                        _, body, _ = queue.get_nowait().payload
                        message = EncodeMessage.model_validate(body)
                        run_encode(runtime, message, redelivered=False)
                        runtime.search.send(refresh_call(runtime.names.physical(message.index, message.generation)))

    return take_all
