"""Tests of ports on loopback."""

import os
import socket
from pathlib import Path

import pytest

from infra import ports
from infra.ports import find_free_port, is_port_taken, require_free_port
from services.errors import ConfigurationError


def test_the_error_of_a_taken_port_names_the_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            require_free_port(port, "the test", "SPARSEWELL_SOME_PORT")
    assert caught.value.code == "port_in_use"
    for part in (str(port), f"process {os.getpid()}", "SPARSEWELL_SOME_PORT"):
        assert part in caught.value.detail


def test_a_free_port_is_free() -> None:
    port = find_free_port()
    assert not is_port_taken(port)
    require_free_port(port, "the test", "X")


def test_free_ports_differ_and_no_connection_gets_them() -> None:
    found = [find_free_port() for _ in range(200)]
    assert len(set(found)) == 200
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert max(found) < server.getsockname()[1]


@pytest.mark.parametrize("text", ["", "x y", "1024 65000"])
def test_without_a_usable_range_connections_begin_at_iana_s(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "range"
    file.write_text(text)
    monkeypatch.setattr("infra.ports.CONNECTION_PORTS_FILE", file)
    assert ports.FIRST_FREE_PORT <= find_free_port() < ports.IANA_CONNECTION_PORT
