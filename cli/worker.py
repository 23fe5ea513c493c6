"""`sparsewell worker` and `sparsewell sweeper`: the processes that encode journalled documents."""

import importlib.util
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from services.manifest import Manifest
    from services.settings import Settings

_OF_DECODERS = ("torch", "transformers", "sentence_transformers", "safetensors")


def worker(
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", min=1, help="number of worker processes; default: one per core")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="name of a shipped encoder, or path of a model directory; default: of the settings"),
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "info",
) -> None:
    """Encode documents and ingest bulk messages until stopped. SIGTERM finishes the current messages first.

    Example: sparsewell worker --concurrency 2
    """
    from services.settings import Settings
    from services.telemetry.sharing import shared_by_children

    settings = Settings.read()
    chosen = {"worker_concurrency": concurrency, "encoder": encoder}
    settings = settings.model_copy(update={name: value for name, value in chosen.items() if value is not None})
    with ExitStack() as stack:
        if settings.metrics_port is not None:
            stack.enter_context(shared_by_children())

        from indexer.app import create_celery
        from indexer.present import present
        from indexer.settings import WorkerSettings
        from indexer.start import cores, run_worker, wait_for_redis
        from services.telemetry.exposition import exposed
        from services.telemetry.logs import configure_logging
        from services.telemetry.tracing import check as check_tracing

        configure_logging("worker", settings.log_format, log_level)
        manifest = check_worker(settings)
        check_tracing()
        times = WorkerSettings.read()
        wait_for_redis(settings.redis_address, times.redis_wait)
        stack.enter_context(exposed(settings, "worker"))
        stack.enter_context(present(settings.redis_address, manifest, settings.worker_concurrency or cores()))
        raise typer.Exit(run_worker(create_celery(settings, times), settings, manifest, log_level))


def sweeper(log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "info") -> None:
    """Enqueue overdue pending documents again, until stopped. Several sweepers may run.

    Example: sparsewell sweeper --log-level warning
    """
    from indexer.sweeper import run_sweeper
    from services.settings import Settings
    from services.telemetry.logs import configure_logging

    settings = Settings.read()
    configure_logging("sweeper", settings.log_format, log_level)
    run_sweeper(settings)


def check_worker(settings: "Settings") -> "Manifest":
    """Return the encoder's manifest after checks that find every fault that would stop a worker later.

    Raises ConfigurationError: `worker_not_installed`, `unknown_encoder`, `bad_manifest`, `corrupt_model_file`.
    """
    from models.registry import DECODER, STANDIN
    from services.errors import ConfigurationError
    from services.manifest import read_manifest, resolve, verified

    directory = resolve(settings.encoder)
    manifest = read_manifest(directory)
    computed_by = {STANDIN: (), DECODER: _OF_DECODERS}.get(manifest.architecture, ("onnxruntime",))
    needed = ["celery", *computed_by]
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise ConfigurationError(
            "worker_not_installed",
            f"A worker with the encoder {manifest.name} needs {' and '.join(missing)}, which the base installation "
            f"leaves out: pip install -e '.[{'worker,gpu' if 'torch' in needed else 'worker'}]'.",
        )
    for name in manifest.files:
        verified(directory, manifest, name)
    return manifest
