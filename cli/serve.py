"""Runs the API and the model process under uvicorn."""

import errno
import logging
import socket

import uvicorn
from fastapi import FastAPI

from query_api.app import create_app
from services.access.mode import access_mode
from services.addresses import http_address
from services.errors import ConfigurationError
from services.settings import Settings


def serve(host: str | None, port: int | None) -> None:
    """Listens until it is told to stop.

    Raises ConfigurationError (`access_undecided`, `port_in_use`) before anything else is done.
    """
    settings = Settings.read()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # the library logs each request with its address and, at debug level, its body
    logging.getLogger("opensearch").setLevel(logging.ERROR)
    settings = settings.model_copy(update={} if host is None else {"api_host": host})
    access_mode(settings)
    listener = listen(settings.api_host, settings.api_port if port is None else port)
    app = create_app(settings)
    with listener:
        run_server(app, listener)


def run_server(app: FastAPI, listener: socket.socket) -> None:
    """Serves an application until a signal says stop."""
    # The port as chosen, also when 0 was asked for: tools that start us read this line.
    bound = listener.getsockname()
    print(f"listening on {http_address(*bound[:2])}", flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=10)
    uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigurationError: `bad_port`, `port_in_use`, `cannot_listen`."""
    if not 0 <= port <= 65535:
        raise ConfigurationError("bad_port", f"{port} is no port: choose one from 1 to 65535, or 0 for any free one.")
    # An IPv6 address has colons, a name or an IPv4 address never; "::" takes both kinds where the system can.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    except UnicodeError:
        raise ConfigurationError("cannot_listen", f"{host!r} is no address to listen on.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                "port_in_use",
                f"Port {port} on {host} is taken: stop what listens there, or choose SPARSEWELL_API_PORT.",
            ) from None
        raise ConfigurationError("cannot_listen", f"Cannot listen on {host}:{port}: {error.strerror}.") from None
