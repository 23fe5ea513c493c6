"""Redis transport that survives what is no message, and a Redis that is full: kombu's own would end the worker."""

import logging
from typing import Any

from kombu.transport import redis, virtual
from kombu.transport.virtual.base import Empty
from kombu.utils.json import dumps
from redis.exceptions import OutOfMemoryError

log = logging.getLogger(__name__)


class TolerantQoS(redis.QoS):  # type: ignore[misc]
    """Goes on while Redis refuses writes (`maxmemory`, noeviction): working is what makes room there.

    A message that is taken then cannot be written down as taken. It is kept here until it is acknowledged; should this
    process be killed before, an encode message is replaced by the sweeper, an ingest message is lost.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._unwritten: dict[str, Any] = {}

    def append(self, message: Any, delivery_tag: str) -> None:
        try:
            super().append(message, delivery_tag)
        except OutOfMemoryError:
            log.warning("redis_full: a message was taken and cannot be written down as taken")
            self._unwritten[delivery_tag] = message
            virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        self._unwritten.pop(delivery_tag, None)
        try:
            super().ack(delivery_tag)
        except OutOfMemoryError:
            # A full Redis refuses whole transactions, even those that only remove.
            with self.channel.conn_or_acquire() as client:
                client.zrem(self.unacked_index_key, delivery_tag)
                client.hdel(self.unacked_key, delivery_tag)
            virtual.QoS.ack(self, delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        try:
            if tag in self._unwritten:
                self._give_back(self._unwritten[tag], client, leftmost)
                del self._unwritten[tag]
            else:
                super().restore_by_tag(tag, client, leftmost)
        except OutOfMemoryError:
            # It stays among the taken ones, or here, and is given back when there is room.
            log.warning("redis_full: a message cannot be given back yet")

    def restore_visible(self, *arguments: Any, **options: Any) -> None:
        for tag in [tag for tag in self._unwritten if tag not in self._delivered or tag in self._dirty]:
            self.restore_by_tag(tag, leftmost=True)
        try:
            super().restore_visible(*arguments, **options)
        except OutOfMemoryError:
            log.warning("redis_full: messages of workers that died wait until there is room")

    def _give_back(self, message: Any, client: Any, leftmost: bool) -> None:
        """As the channel does it, which would swallow the error and log the whole message."""
        payload, where = message._raw, message.delivery_info
        payload["headers"]["redelivered"] = True
        payload["properties"]["delivery_info"]["redelivered"] = True
        with self.channel.conn_or_acquire(client) as connection:
            push = connection.lpush if leftmost else connection.rpush
            for queue in self.channel._lookup(where["exchange"], where["routing_key"]):
                push(self.channel._q_for_pri(queue, self.channel._get_message_priority(payload, reverse=False)),
                     dumps(payload))  # fmt: skip


class TolerantChannel(redis.Channel):  # type: ignore[misc]
    """Drops items that are not kombu messages. Without it one such item ends the worker process that takes it."""

    QoS = TolerantQoS

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("undecodable_message: an item that is no message was deleted (%s)", type(error).__name__)
            raise Empty from None


class TolerantTransport(redis.Transport):  # type: ignore[misc]
    """kombu's Redis transport with `TolerantChannel`."""

    Channel = TolerantChannel
