"""Two ways to ask for vectors of a new generation's documents: its encoder's workers, or this very process."""

import logging
from collections.abc import Sequence

from indexer.encode_task import run_encode
from indexer.reindex.follower import Dispatch
from indexer.runtime import Runtime
from services.contracts import EncodeMessage, encode_messages
from services.errors import BackendUnavailable, Overloaded
from services.index_spec import Generation
from services.queue import Publisher
from services.settings import Settings

log = logging.getLogger(__name__)


def messages(settings: Settings, target: Generation, ids: Sequence[str]) -> list[EncodeMessage]:
    """Messages for documents of one generation."""
    return encode_messages(target.index, ids, settings.message_documents, target.number)


def through_queue(publisher: Publisher, settings: Settings, target: Generation) -> Dispatch:
    """Asks the workers that hold the target's encoder.

    While Redis is away or full the sweeper does, when leases run out.
    """

    def dispatch(ids: Sequence[str]) -> None:
        try:
            for message in messages(settings, target, ids):
                publisher.encode(target.encoder.name, message)
        except (BackendUnavailable, Overloaded) as error:
            log.warning("%s: the sweeper will enqueue what stays pending", error.code)

    return dispatch


def here(runtime: Runtime, target: Generation) -> Dispatch:
    """Encodes in this process, as a worker would; what fails stays pending, or dead with a reason."""

    def dispatch(ids: Sequence[str]) -> None:
        for message in messages(runtime.settings, target, ids):
            run_encode(runtime, message, redelivered=False)

    return dispatch
