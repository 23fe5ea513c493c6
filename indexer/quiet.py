"""Keeps documents out of the logs: Celery prints the whole body of a message that it cannot handle."""

import logging

from celery.worker.consumer import consumer
from pydantic import ValidationError

_PRINTS_BODY = {
    consumer.UNKNOWN_FORMAT: "unknown_message: a message that is no Celery task was deleted from the queue",
    consumer.UNKNOWN_TASK_ERROR: "unknown_task: a message for a task that no worker here knows was deleted: %s",
    consumer.INVALID_TASK_ERROR: "invalid_task: a message that breaks Celery's protocol was deleted",
    consumer.MESSAGE_DECODE_ERROR: "undecodable_message: a message that is not JSON was deleted from the queue",
}


class WithoutBodies(logging.Filter):
    """Replaces Celery's reports of unusable messages by ours, which have a stable code and no body."""

    def filter(self, record: logging.LogRecord) -> bool:
        plain = _PRINTS_BODY.get(record.msg)
        if plain is not None:
            name = str(record.args[0])[:200] if isinstance(record.args, tuple) and record.args else ""
            record.msg, record.args = plain, ((name,) if "%s" in plain else ())
            record.exc_info = None
        return True


def install() -> None:
    """Filters the logger of Celery's consumer; more than once does no harm."""
    logger = logging.getLogger(consumer.__name__)
    if not any(isinstance(one, WithoutBodies) for one in logger.filters):
        logger.addFilter(WithoutBodies())


def complaint(error: ValidationError) -> str:
    """What is wrong with a message, without what it holds: the first error's place and words."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"])) or "message"
    return f"{place[:200]}: {first['msg'][:200]}"
