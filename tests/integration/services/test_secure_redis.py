"""A Redis with TLS, client certificates and a password, with each of the service's Redis clients."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from indexer.celery_app import celery_configuration
from indexer.runtime import WorkerSettings
from indexer.worker import wait_for_redis
from infra import processes
from infra.ports import find_free_port
from infra.redis import redis_command
from services.errors import BackendUnavailable, ConfigurationError
from services.queue.lanes import load_queue
from services.queue.messages import EncodeMessage, Publisher
from services.settings import Settings
from tests.certificates import Authority

PASSWORD = "s3cret/with@signs"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Yield the settings that reach a Redis with TLS and a password."""
    directory = tmp_path_factory.mktemp("redis")
    authority = Authority(directory)
    server, (cert, key) = authority.sign("server", host="127.0.0.1"), authority.sign("client")
    port = find_free_port()
    binary = shutil.which("redis-server")
    assert binary, "redis-server is not on the PATH"
    tls = {"tls-port": port, "tls-cert-file": server[0], "tls-key-file": server[1], "tls-ca-cert-file": authority.ca}
    arguments = redis_command(binary, port=0, data=directory, databases=1)
    for name, value in {**tls, "requirepass": PASSWORD}.items():
        arguments += [f"--{name}", str(value)]
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    child = processes.start_child(
        "redis", arguments, directory / "log", environment=environment, directory=directory, tied=True
    )
    settings = {
        "redis_url": f"rediss://127.0.0.1:{port}/0", "redis_password": PASSWORD,
        "redis_ca": authority.ca, "redis_cert": cert, "redis_key": key,
    }  # fmt: skip
    try:
        wait_for_redis(Settings(**settings).redis_address, 30)
        yield settings
    finally:
        processes.stop_child(child, 5)


def test_messages_go_there_and_are_taken(given: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = Settings(**given)
    with closing(Publisher(settings.redis_address)) as publisher:
        publisher.encode("standin", EncodeMessage(index="books", ids=["1"]))
        assert publisher.depth(load_queue("standin", "books")) == 1
        lead = publisher.clock_lead()
        assert lead is not None
        assert abs(lead) < 60, "Redis is on the same host"
    with Celery("here", set_as_current=False) as app:
        app.conf.update(celery_configuration(settings, WorkerSettings()))
        with app.connection_for_read() as connection, connection.SimpleQueue(load_queue("standin", "books")) as queue:
            message = queue.get(timeout=10)
            assert message.payload[1]["ids"] == ["1"]
            message.ack()
            assert PASSWORD not in f"{connection!r} {connection.as_uri()}"
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"redis_ca": None},
        {"redis_cert": None, "redis_key": None},
        {"redis_password": "other"},
        {"redis_password": None},
    ],
    ids=["its certificate is not trusted", "we show none", "another password", "no password"],
)
def test_otherwise_nothing_is_sent(
    given: dict[str, Any], wrong: dict[str, None], caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(**given | wrong)
    with closing(Publisher(settings.redis_address)) as publisher, pytest.raises(BackendUnavailable) as caught:
        publisher.encode("standin", EncodeMessage(index="books", ids=["2"]))
    assert caught.value.code == "redis_unavailable"
    with pytest.raises(ConfigurationError) as stopped:
        wait_for_redis(settings.redis_address, 0)
    with Celery("here", set_as_current=False) as app:
        app.conf.update(celery_configuration(settings, WorkerSettings()))
        with app.connection_for_read() as connection, pytest.raises((OperationalError, OSError)) as refused:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            connection.default_channel.client.ping()
    assert "s3cret" not in f"{caught.value} {stopped.value} {refused.value} {caplog.text}"
