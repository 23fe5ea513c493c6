"""`sparsewell models`: dense encoders, and the model process that reranks searches."""

from typing import Annotated

import typer

app = typer.Typer(name="models", help="List, fetch and serve dense encoders and rerankers.", no_args_is_help=True)


@app.command(name="list")
def list_() -> None:
    """List the dense encoders that an index may declare.

    Example: sparsewell models list
    """
    from services.known_dense import known_dense
    from services.settings import Settings

    for name, one in known_dense(Settings.read()).items():
        identity = one.identity
        size = f"width {identity.width}, windows of {identity.window.pieces} pieces"
        print(f"{name}  {identity.fingerprint}  {size}  {one.licence}")


@app.command()
def fetch(names: Annotated[list[str], typer.Argument(help="names from `sparsewell models list`")]) -> None:
    """Download dense encoders ahead of their first use by a worker or the model process.

    Example: sparsewell models fetch bge-small-en-v1.5-int8
    """
    from models.dense.opening import load_dense
    from services.known_dense import find_dense, known_dense
    from services.machine.directories import DirectorySettings, cache_dir
    from services.settings import Settings

    known = known_dense(Settings.read())
    for name in names:
        load_dense(find_dense(known, name), cache_dir(DirectorySettings.read()), print)
        print(f"{name} is downloaded.")


@app.command("serve")
def serve(
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on; 0 chooses a free port")] = None,
) -> None:
    """Run the model process, which embeds queries and reranks, until stopped.

    Set SPARSEWELL_MODEL_URL of the API to its address.

    Example: sparsewell models serve --port 8020
    """
    from cli.uvicorn_server import listen, run_server, say_where
    from models.serving.app import create_model_app
    from models.serving.loading import load_held
    from services.access.mode import model_keys
    from services.machine.directories import DirectorySettings, cache_dir
    from services.settings import Settings
    from services.telemetry.exposition import exposed
    from services.telemetry.logs import configure_logging
    from services.telemetry.tracing import traced
    from services.web.connections import ConnectionLimits

    settings = Settings.read()
    configure_logging("models", settings.log_format)
    host = settings.model_host if host is None else host
    keys = model_keys(settings, host)
    with listen(host, settings.model_port if port is None else port) as socket:
        held = load_held(settings, cache_dir(DirectorySettings.read()), print)
        with exposed(settings, "models"), traced("models"):
            say_where(socket)
            app = create_model_app(held, keys, log_requests=settings.log_requests)
            run_server(app, socket, ConnectionLimits.of(settings))
