"""`sparsewell api`: run the API under uvicorn."""

import errno
import socket

from cli.uvicorn_server import run_server
from services.access.mode import access_mode
from services.addresses import http_address
from services.errors import ConfigurationError
from services.settings import Settings
from services.telemetry.exposition import exposed
from services.telemetry.logs import configure_logging
from services.telemetry.tracing import traced
from services.web.connections import ConnectionLimits


def serve(host: str | None, port: int | None) -> None:
    """Serve the API until a signal stops it.

    Raises ConfigurationError (`access_undecided`, `port_in_use`) before anything starts.
    """
    # Imported here, because the model process uses this module and its image has no API.
    from query_api.app import create_app

    settings = Settings.read()
    configure_logging("api", settings.log_format)
    settings = settings.model_copy(update={} if host is None else {"api_host": host})
    access_mode(settings)
    with listen(settings.api_host, settings.api_port if port is None else port) as listener:
        app = create_app(settings)
        with exposed(settings, "api"), traced("api"):
            say_where(listener)
            run_server(app, listener, ConnectionLimits.of(settings), app.state.readiness.drain, settings.drain_seconds)


def say_where(listener: socket.socket) -> None:
    """Print the address with the real port. Tools that start the process read this line."""
    print(f"listening on {http_address(*listener.getsockname()[:2])}", flush=True)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises ConfigurationError (`bad_port`, `port_in_use`, `cannot_listen`)."""
    if not 0 <= port <= 65535:
        raise ConfigurationError("bad_port", f"{port} is not a port: choose 1 to 65535, or 0 for a free port.")
    # An IPv6 address has colons, a name or an IPv4 address never; "::" takes both kinds where the system can.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    except UnicodeError:
        raise ConfigurationError("cannot_listen", f"{host!r} is not an address to listen on.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                "port_in_use",
                f"Port {port} on {host} is in use: stop the other process, or set SPARSEWELL_API_PORT.",
            ) from None
        raise ConfigurationError("cannot_listen", f"Cannot listen on {host}:{port}: {error.strerror}.") from None
