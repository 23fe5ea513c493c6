"""`sparsewell api`: run the API under uvicorn."""


def serve(host: str | None, port: int | None) -> None:
    """Serve the API until a signal stops it.

    Raises ConfigurationError (`access_undecided`, `port_in_use`) before anything starts.
    """
    from cli.uvicorn_server import listen, run_server, say_where
    from query_api.app import create_app
    from services.access.mode import access_mode
    from services.settings import Settings
    from services.telemetry.exposition import exposed
    from services.telemetry.logs import configure_logging
    from services.telemetry.tracing import traced
    from services.web.connections import ConnectionLimits

    settings = Settings.read()
    configure_logging("api", settings.log_format)
    settings = settings.model_copy(update={} if host is None else {"api_host": host})
    access_mode(settings)
    with listen(settings.api_host, settings.api_port if port is None else port) as listener:
        app = create_app(settings)
        with exposed(settings, "api"), traced("api"):
            say_where(listener)
            run_server(app, listener, ConnectionLimits.of(settings), app.state.readiness.drain, settings.drain_seconds)
