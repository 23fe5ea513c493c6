"""Ports on loopback: a free one, and who has a taken one."""

import socket

import psutil

from services.errors import ConfigurationError

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_taken(port: int) -> bool:
    """Whether a server could not listen on the loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def require_free(port: int, purpose: str, variable: str) -> None:
    """Raises `port_in_use`, naming the port and, where we may see it, the process that listens."""
    if is_taken(port):
        raise ConfigurationError(
            "port_in_use",
            f"Port {port}, wanted for {purpose}, is taken by {holder(port)}. Stop that, or choose another port with "
            f"{variable}.",
            port=port,
        )


def holder(port: int) -> str:
    """Words for the process that listens on the port."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return "a process that this user may not see"
