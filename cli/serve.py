"""The commands that run a process of the service: `sparsewell api`, `worker`, `sweeper` and `models serve`.

Each checks its settings before it accepts work and then runs until a signal stops it. `sparsewell adopt-redis` settles
which installation a Redis belongs to, `sparsewell models` also lists and downloads dense encoders, and `sparsewell
openapi` prints the OpenAPI document of the API.
"""

import gc
import importlib.util
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from services.encoders.manifest import Manifest
    from services.settings import Settings

models_app = typer.Typer(
    name="models", help="List, fetch and serve dense encoders and rerankers.", no_args_is_help=True
)
_DECODER_PACKAGES = ("torch", "transformers", "sentence_transformers", "safetensors")


def serve_api(host: str | None, port: int | None) -> None:
    """Serve the API until a signal stops it.

    Raises ConfigurationError (`access_undecided`, `port_in_use`, `foreign_redis`) before anything starts.
    """
    from query_api.app import create_app
    from services.access.api_keys import resolve_access_mode
    from services.queue.installation import claim_redis
    from services.settings import Settings
    from services.telemetry.logs import configure_logging
    from services.telemetry.metrics import expose_metrics
    from services.telemetry.tracing import tracing_session
    from services.web.http_server import ConnectionLimits, open_listener, print_port, run_server

    settings = Settings.read()
    configure_logging("api", settings.log_format)
    settings = settings.model_copy(update={} if host is None else {"api_host": host})
    resolve_access_mode(settings)
    with open_listener(settings.api_host, settings.api_port if port is None else port) as listener:
        claim_redis(settings)
        app = create_app(settings)
        # The collector need not visit the objects that last: with them it stops a process for 100 ms now and then.
        gc.collect()
        gc.freeze()
        # A transcript of 100,000 segments makes so many objects that the collector's default (700, 10, 10) visits all
        # of them several times, for 80 to 150 ms each. With these thresholds a pass takes 15 ms.
        gc.set_threshold(10_000, 10, 100)
        with expose_metrics(settings, "api"), tracing_session("api"):
            print_port(listener)
            run_server(app, listener, ConnectionLimits.of(settings), app.state.readiness.drain, settings.drain_seconds)


def worker(
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", min=1, help="number of worker processes; default: one per core")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="name of a shipped encoder, or path of a model directory; default: from the settings"),
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "info",
) -> None:
    """Encode documents and ingest bulk messages until stopped. SIGTERM finishes the current messages first.

    Example: sparsewell worker --concurrency 2
    """
    from indexer.worker import announce_worker, available_cores, run_worker, share_metrics, wait_for_redis
    from services.settings import Settings

    settings = Settings.read()
    options = {"worker_concurrency": concurrency, "encoder": encoder}
    settings = settings.model_copy(update={name: value for name, value in options.items() if value is not None})
    with ExitStack() as stack:
        if settings.metrics_port is not None:
            stack.enter_context(share_metrics())

        from indexer.celery_app import create_celery
        from indexer.runtime import WorkerSettings
        from services.queue.installation import claim_redis
        from services.telemetry.logs import configure_logging
        from services.telemetry.metrics import expose_metrics
        from services.telemetry.tracing import check_tracing

        configure_logging("worker", settings.log_format, log_level)
        manifest = check_worker_requirements(settings)
        check_tracing()
        times = WorkerSettings.read()
        wait_for_redis(settings.redis_address, times.redis_wait)
        claim_redis(settings)
        stack.enter_context(expose_metrics(settings, "worker"))
        stack.enter_context(
            announce_worker(settings.redis_address, manifest, settings.worker_concurrency or available_cores())
        )
        raise typer.Exit(run_worker(create_celery(settings, times), settings, manifest, log_level))


def check_worker_requirements(settings: "Settings") -> "Manifest":
    """Check the packages and files that a worker needs, and return its encoder's manifest.

    Raises ConfigurationError: `worker_not_installed`, `unknown_encoder`, `bad_manifest`, `corrupt_model_file`.
    """
    from models.registry import DECODER_ARCHITECTURE, STANDIN_ARCHITECTURE
    from services.encoders.manifest import read_manifest, resolve_model_directory, verify_file
    from services.errors import ConfigurationError

    directory = resolve_model_directory(settings.encoder)
    manifest = read_manifest(directory)
    model_packages = {STANDIN_ARCHITECTURE: (), DECODER_ARCHITECTURE: _DECODER_PACKAGES}.get(
        manifest.architecture, ("onnxruntime",)
    )
    packages = ["celery", *model_packages]
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise ConfigurationError(
            "worker_not_installed",
            f"A worker with the encoder {manifest.name} needs {' and '.join(missing)}, which the base installation "
            f"leaves out: pip install -e '.[{'worker,gpu' if 'torch' in packages else 'worker'}]'.",
        )
    for name in manifest.files:
        verify_file(directory, manifest, name)
    return manifest


def sweeper(log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "info") -> None:
    """Enqueue overdue pending documents again, until stopped. Several sweepers may run.

    Example: sparsewell sweeper --log-level warning
    """
    from indexer.sweeper import run_sweeper
    from services.queue.installation import claim_redis
    from services.settings import Settings
    from services.telemetry.logs import configure_logging

    settings = Settings.read()
    configure_logging("sweeper", settings.log_format, log_level)
    claim_redis(settings)
    run_sweeper(settings)


def adopt_redis() -> None:
    """Take over a Redis that belonged to another installation, after its OpenSearch cluster was replaced.

    Messages of the other installation that still wait there are lost for it.

    Example: sparsewell adopt-redis
    """
    from services.queue.installation import claim_redis
    from services.settings import Settings

    claim_redis(Settings.read(), replace=True)
    print("Redis belongs to this installation now. Start its processes.")


@models_app.command(name="list")
def list_() -> None:
    """List the dense encoders that an index may declare.

    Example: sparsewell models list
    """
    from services.encoders.catalogue import list_dense_encoders
    from services.settings import Settings

    for name, encoder in list_dense_encoders(Settings.read()).items():
        identity = encoder.identity
        size = f"width {identity.width}, windows of {identity.window.pieces} pieces"
        print(f"{name}  {identity.fingerprint}  {size}  {encoder.licence}")


@models_app.command()
def fetch(names: Annotated[list[str], typer.Argument(help="names from `sparsewell models list`")]) -> None:
    """Download dense encoders ahead of their first use by a worker or the model process.

    Example: sparsewell models fetch bge-small-en-v1.5-int8
    """
    from models.dense import load_dense_encoder
    from services.directories import DirectorySettings, resolve_cache_directory
    from services.encoders.catalogue import find_dense_encoder, list_dense_encoders
    from services.settings import Settings

    known = list_dense_encoders(Settings.read())
    for name in names:
        load_dense_encoder(find_dense_encoder(known, name), resolve_cache_directory(DirectorySettings.read()), print)
        print(f"{name} is downloaded.")


@models_app.command("serve")
def serve_models(
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on; 0 chooses a free port")] = None,
) -> None:
    """Run the model process, which embeds queries and reranks, until stopped.

    Set SPARSEWELL_MODEL_URL of the API to its address.

    Example: sparsewell models serve --port 8020
    """
    from models.serving import create_model_app, load_model_pool
    from services.access.api_keys import read_model_keys
    from services.directories import DirectorySettings, resolve_cache_directory
    from services.settings import Settings
    from services.telemetry.logs import configure_logging
    from services.telemetry.metrics import expose_metrics
    from services.telemetry.tracing import tracing_session
    from services.web.http_server import ConnectionLimits, open_listener, print_port, run_server

    settings = Settings.read()
    configure_logging("models", settings.log_format)
    host = settings.model_host if host is None else host
    keys = read_model_keys(settings, host)
    with open_listener(host, settings.model_port if port is None else port) as socket:
        pool = load_model_pool(settings, resolve_cache_directory(DirectorySettings.read()), print)
        with expose_metrics(settings, "models"), tracing_session("models"):
            print_port(socket)
            app = create_model_app(pool, keys, log_requests=settings.log_requests)
            run_server(app, socket, ConnectionLimits.of(settings))


def openapi() -> None:
    """Print the OpenAPI document of the API as JSON.

    Example: sparsewell openapi
    """
    from query_api.app import create_app
    from services.settings import Settings

    print(json.dumps(create_app(Settings.read()).openapi(), indent=1, ensure_ascii=False, sort_keys=True))
