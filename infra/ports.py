"""Ports on loopback: find a free port, and check before a start that a port is free.

`find_free_port` gives a port to a server without a configured port. `require_free_port` names the process that
listens on a configured port.

The kernel does not reserve a port that was found, so another process may take it until the caller's server listens.
"""

import secrets
import socket
from pathlib import Path

import psutil

from services.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
# `find_free_port` searches from here: our own default ports and those of common services lie below.
FIRST_FREE_PORT = 20_000
IANA_CONNECTION_PORT = 49_152
CONNECTION_PORTS_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_found_ports: set[int] = set()


def find_free_port() -> int:
    """Return a loopback port without a listener, below the range from which the kernel gives ports to connections.

    A connection could take a port of that range before the caller's server listens: a metrics port was lost so. This
    process gets no port twice. Raises ConfigurationError (`port_in_use`) if none is free.
    """
    end = _first_connection_port()
    for _ in range(1000):
        port = FIRST_FREE_PORT + secrets.randbelow(end - FIRST_FREE_PORT)
        if port not in _found_ports and not is_port_taken(port):
            _found_ports.add(port)
            return port
    raise ConfigurationError("port_in_use", f"No port from {FIRST_FREE_PORT} to {end - 1} is free.")


def _first_connection_port() -> int:
    """Return the first port that connections get (Linux: net.ipv4.ip_local_port_range, IANA: from 49152)."""
    try:
        first = int(CONNECTION_PORTS_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return IANA_CONNECTION_PORT
    return first if first > FIRST_FREE_PORT + 1000 else IANA_CONNECTION_PORT


def is_port_taken(port: int) -> bool:
    """Return whether a server could not listen on the loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do, so TIME_WAIT does not matter
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def require_free_port(port: int, purpose: str, variable: str) -> None:
    """Raise ConfigurationError (`port_in_use`) with the port and, where visible, the process that listens."""
    if is_port_taken(port):
        raise ConfigurationError(
            "port_in_use",
            f"Port {port}, which {purpose} needs, is taken by {describe_port_holder(port)}. Stop that process, or "
            f"choose another port with {variable}.",
            port=port,
        )


def describe_port_holder(port: int) -> str:
    """Return a description of the process that listens on the port."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return "a process that this user may not see"
