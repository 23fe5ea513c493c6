"""Redis transport that survives what is no message: anybody may push to a list, and kombu's own reader would raise."""

import logging
from typing import Any

from kombu.transport import redis
from kombu.transport.virtual.base import Empty

log = logging.getLogger(__name__)


class TolerantChannel(redis.Channel):  # type: ignore[misc]
    """Drops items that are not kombu messages. Without it one such item ends the worker process that takes it."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("undecodable_message: an item that is no message was deleted (%s)", type(error).__name__)
            raise Empty from None


class TolerantTransport(redis.Transport):  # type: ignore[misc]
    """kombu's Redis transport with `TolerantChannel`."""

    Channel = TolerantChannel
