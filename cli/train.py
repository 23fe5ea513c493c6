"""`sparsewell train`: train and fit encoders and chapter generators. Needs the extra `train`, a fit only `fit`.

Each command checks its options and the installed packages, then runs a pipeline of `models.training` or
`models.decoder`, with progress on standard error. See docs/training.md and docs/mistral-splade.md.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from services.errors import ConfigurationError

if TYPE_CHECKING:
    from cli.terminal import TrainingConsole
    from models.training.mining import OpenIndexCandidates
    from models.training.pairs import PairSet

app = typer.Typer(
    no_args_is_help=True, help="Train and fit encoders and chapter generators (to train: make setup-train)."
)

RecipeArgument = Annotated[Path, typer.Argument(help="recipe, a TOML file, see docs/training.md")]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="directory of the run; the same command goes on where it stopped")
]
CopyToOption = Annotated[
    Path | None, typer.Option(help="second directory for the curve and the best checkpoint of every evaluation")
]
ApiOption = Annotated[
    str | None, typer.Option(help="address of the API, for negatives.index; default: from the settings")
]
NameOption = Annotated[str | None, typer.Option(help="name of the encoder; default: of the directory")]


@app.command()
def sparse(
    recipe: RecipeArgument, out: OutOption, copy_to: CopyToOption = None, name: NameOption = None, api: ApiOption = None
) -> None:
    """Train an inference-free sparse encoder by a recipe. Writes the model directory OUT/NAME.

    Example: sparsewell train sparse recipe.toml --out runs/mine
    """
    from models.training.recipe import read_recipe

    content = read_recipe(recipe)
    with _training_session() as show:
        from models.training.pipeline import run_recipe

        index = _open_index_source(api, content.negatives.index)
        model = run_recipe(content, out, name=name, copy_to=copy_to, show=show, index=index)
        show.report(
            f"The encoder is {model}: `sparsewell encoders show {model}`, `sparsewell reindex INDEX --encoder {model}`."
        )


@app.command()
def ablation(
    recipe: RecipeArgument,
    out: OutOption,
    only: Annotated[list[str] | None, typer.Option(help="name of a variant to train; repeatable; default: all")] = None,
    api: ApiOption = None,
) -> None:
    """Train the recipe again without each removable component, and print the effect of each.

    Example: sparsewell train ablation recipe.toml --out runs/ablation
    """
    from models.training.recipe import read_recipe

    _require_one_device("ablation")
    content = read_recipe(recipe)
    with _training_session() as show:
        from models.training.ablation import ablation_table
        from models.training.pipeline import run_ablation

        index = _open_index_source(api, content.negatives.index)
        table = ablation_table(run_ablation(content, out, only or [], show=show, index=index))
        (out / "ablation.md").write_text(table + "\n", encoding="utf-8")
    print(table)


@app.command()
def project(  # noqa: PLR0913, PLR0917 (each argument is an option of the command)
    dense: Annotated[
        str, typer.Argument(help="dense encoder, see sparsewell train teachers, or a directory with dense.json")
    ],
    pairs: Annotated[list[Path], typer.Argument(help="JSON lines with query and passage (may be compressed)")],
    out: Annotated[Path, typer.Option("--out", "-o", help="directory of the encoder; its name becomes the encoder's")],
    queries: Annotated[int, typer.Option(min=1000, help="most queries that the table is fitted to")] = 100_000,
    passages: Annotated[int, typer.Option(min=1000, help="most passages that are encoded")] = 10_000,
    window: Annotated[int, typer.Option(min=16, max=8190, help="pieces of a window")] = 254,
    expansions: Annotated[int, typer.Option(min=1, max=4096, help="projected pieces of a window")] = 96,
    scale: Annotated[float, typer.Option(min=0.0, max=100.0, help="factor of projected weights")] = 0.4,
    precision: Annotated[Literal["int8", "int7", "fp16", "fp32"], typer.Option(help="of the model's weights")] = "int8",
    licence: Annotated[str | None, typer.Option(help="licence of the new encoder; default: of the dense one")] = None,
) -> None:
    """Fit an encoder that projects a dense encoder's vectors into the vocabulary. Takes minutes on a processor.

    Example: sparsewell train project all-minilm-l6-v2 pairs/*.jsonl.gz --out projected-minilm-l6
    """
    require_fit_extra()
    with _fit_session() as show:
        from models.projection.train import ProjectionOptions, open_dense_source, project_encoder
        from services.directories import DirectorySettings, resolve_cache_directory
        from services.encoders.manifest import WindowSettings
        from services.settings import Settings

        cache = resolve_cache_directory(DirectorySettings.read())
        source = open_dense_source(dense, Settings.read(), cache, show.report)
        options = ProjectionOptions(
            queries=queries,
            passages=passages,
            window=WindowSettings(pieces=window, overlap=round(window / 8)),
            expansions=expansions,
            scale=scale,
            precision=precision,
            licence=licence or source.licence,
        )
        project_encoder(source, pairs, out, options, show=show)
        show.report(
            f"The encoder is {out}: `sparsewell encoders show {out}`, `sparsewell reindex INDEX --encoder {out}`."
        )


@app.command()
def own(  # noqa: PLR0913, PLR0917 (each argument is an option of the command)
    corpus: Annotated[
        Path, typer.Argument(help="JSON lines with id, title and text (may be compressed), or a directory")
    ],
    out: OutOption,
    judgements: Annotated[Path | None, typer.Option(help="judged collection (BEIR layout) for the report only")] = None,
    start: Annotated[
        str, typer.Option(help="encoder to start from: a projected one is refitted, a trained one trains on")
    ] = "projected-minilm-l6",
    teacher: Annotated[
        str | None,
        typer.Option(
            help="dense teacher of a training, see sparsewell train teachers; none: learn from BM25 and the start only "
            "[default: bge-small-en-v1.5-int8]"
        ),
    ] = None,
    generator: Annotated[
        Path | None, typer.Option(help="directory of a causal language model that generates questions")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="training steps [default: 300]")] = None,
    batch: Annotated[
        int | None, typer.Option(min=2, help="pairs per step, each with three hard negatives [default: 12]")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-7, max=1e-1, help="peak learning rate [default: 0.0001]")
    ] = None,
    regulariser: Annotated[
        float | None,
        typer.Option(min=0, help="weight of the regulariser; larger gives sparser vectors [default: 0.00025]"),
    ] = None,
    queries: Annotated[
        int | None, typer.Option(min=64, help="most texts of the corpus that a refit reads [default: 20000]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of the random numbers")] = 0,
    name: NameOption = None,
) -> None:
    """Adapt an encoder to a corpus, without queries or judgements. Writes OUT/NAME and OUT/report.md.

    Example: sparsewell train own books.jsonl --out runs/books
    """
    from models.registry import PROJECTED_ARCHITECTURE
    from services.encoders.manifest import read_manifest, resolve_model_directory

    _require_one_device("own")
    title = name or out.resolve().name
    training = {"batch": batch, "learning_rate": learning_rate, "regulariser_weight": regulariser, "steps": steps}
    if read_manifest(resolve_model_directory(start)).architecture == PROJECTED_ARCHITECTURE:
        _refuse_options(
            training | {"teacher": teacher}, f"{start} is a projected encoder: it is refitted in closed form."
        )
        require_fit_extra()
        with _fit_session() as show:
            from models.training.own.refit import RefitOptions, refit_own_encoder

            more = _question_generator(generator, start, out, show)
            refit = RefitOptions(start, judgements=judgements, seed=seed, more=more, **_given({"queries": queries}))
            refit_own_encoder(corpus, out, refit, name=title, show=show)
    else:
        _refuse_options({"queries": queries}, f"{start} is a trained encoder: it trains on pairs.")
        with _training_session() as show:
            from models.training.own.run import OwnCorpusOptions, train_own_encoder

            dense = [] if teacher == "none" else [("dense", teacher or "bge-small-en-v1.5-int8", 0.5)]
            options = OwnCorpusOptions(
                start,
                [*dense, ("bm25", "", 0.3), ("sparse", start, 0.2)],
                judgements=judgements,
                seed=seed,
                more=_question_generator(generator, start, out, show),
                **_given(training),
            )
            train_own_encoder(corpus, out, options, name=title, show=show)
    print((out / "report.md").read_text(encoding="utf-8"))


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def mistral(context: typer.Context) -> None:
    """Train Mistral-SPLADE from a decoder-only model. --help lists the options, see docs/mistral-splade.md.

    Example: sparsewell train mistral smollm2 pairs.jsonl.gz --out my-decoder --licence Apache-2.0 --steps 1000
    """
    require_train_extra()
    from models.decoder.train import main
    from models.training.storage import disk_failures

    with disk_failures():
        main(context.args)


@app.command()
def chapters(
    episodes: Annotated[list[Path], typer.Argument(help="JSON lines of episodes with chapters (may be compressed)")],
    out: Annotated[Path, typer.Option("--out", "-o", help="directory of the model; its checkpoints go next to it")],
    base: Annotated[str, typer.Option(help="smollm2, directory of a checkpoint, or name on a model hub")] = "smollm2",
    recipe: Annotated[Path | None, typer.Option(help="recipe, a TOML file, see docs/training.md")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="training steps; overrides the recipe")] = None,
    licence: Annotated[str, typer.Option(help="licence of the new model, for the manifest")] = "unstated",
    merge: Annotated[bool, typer.Option(help="write full weights, or adapters that need their base model")] = False,
    boundaries: Annotated[
        Literal["own", "tiling"],
        typer.Option(help="boundaries by the model itself, or by the engine tiling (the model then writes titles)"),
    ] = "own",
) -> None:
    """Train a chapter generator (podtile) on the episodes that are not held out.

    Example: sparsewell train chapters episodes.jsonl.gz --base smollm2 --out my-chapters
    """
    from models.chapters.training_data import read_chapter_recipe

    content = read_chapter_recipe(recipe, steps)
    with _training_session() as show:
        from models.chapters.training import train_chapters

        model = train_chapters(
            episodes, base, out, content, licence=licence, merge=merge, boundaries=boundaries, show=show
        )
        show.report(
            f"The model {model.directory} has the fingerprint {model.manifest.fingerprint}. Set "
            "SPARSEWELL_CHAPTER_MODEL to its directory to use it."
        )


@app.command()
def teachers(
    fetch: Annotated[list[str] | None, typer.Argument(help="names of models to download; default: list all")] = None,
) -> None:
    """List the models that training can learn from or start from, or download some.

    Example: sparsewell train teachers bge-small-en-v1.5-int8
    """
    from models.download import fetch_model
    from services.directories import DirectorySettings, resolve_cache_directory
    from services.encoders.catalogue import load_fetchable_models

    if not fetch:
        for name, known in load_fetchable_models().items():
            print(f"{name}: {known.what}; {known.megabytes} MB; {known.licence}")
        return
    for name in fetch:
        print(f"{name}: {fetch_model(name, resolve_cache_directory(DirectorySettings.read()), print)}")


@app.command()
def passages(
    recipe: RecipeArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write: JSON lines for sparsewell load")],
) -> None:
    """Write the passages of a recipe as documents. An index of them supplies hard negatives.

    Example: sparsewell train passages recipe.toml --output passages.jsonl
    """
    import json

    from models.training.batches import MixtureFile, read_mixture
    from models.training.mining import passage_documents
    from models.training.recipe import read_recipe
    from models.training.storage import disk_failures

    content = read_recipe(recipe)
    files = [MixtureFile(pairs.path, weight=pairs.weight, cap=pairs.cap) for pairs in content.pairs]
    with disk_failures(), output.open("w", encoding="utf-8") as file:
        for document in passage_documents(read_mixture(files, content.seed).pairs):
            file.write(json.dumps(document, ensure_ascii=False) + "\n")
    print(f"Load them with `sparsewell load {output} --index NAME`, then set negatives.index of the recipe to NAME.")


def _open_index_source(api: str | None, index: str) -> "OpenIndexCandidates | None":
    """Return a function that finds hard negatives in an index through the API; None without an index."""
    if not index:
        return None
    from cli.api_client import api_address, connect_api
    from cli.relevance.live import make_index_candidates
    from services.settings import Settings

    client = connect_api(api_address(Settings.read(), api), 30.0)
    return lambda pairs: make_index_candidates(client, index, "hybrid", pairs)


def _question_generator(
    directory: Path | None, start: str, out: Path, show: "TrainingConsole"
) -> "Callable[[PairSet], PairSet] | None":
    """Return a function that adds generated questions; None without the directory of a language model."""
    if directory is None:
        return None
    require_train_extra()
    from models.training.own.questions import make_question_generator

    return make_question_generator(directory, start, out, show)


def _refuse_options(options: Mapping[str, object], reason: str) -> None:
    """Raise ConfigurationError (`useless_option`) if one of the options is given."""
    given = _given(options)
    if given:
        names = ", ".join("--" + name.removesuffix("_weight").replace("_", "-") for name in given)
        raise ConfigurationError("useless_option", f"{reason} Leave out {names}.")


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def _require_one_device(command: str) -> None:
    """Refuse to run under accelerate: its processes would write the same report.

    Raises ConfigurationError (`one_device_only`).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigurationError(
            "one_device_only",
            f"`sparsewell train {command}` runs on one device: start it without accelerate. Only "
            "`sparsewell train sparse` runs on several.",
        )


def require_train_extra() -> None:
    """Check that the `train` extra is installed. Raises ConfigurationError (`train_extra_missing`)."""
    _require_packages(
        ("torch", "sentence_transformers", "bm25s", "datasets", "accelerate"),
        "Training",
        "`make setup-train`, or `pip install --no-deps --require-hashes -r requirements/train.txt` (7 GB)",
    )


def require_fit_extra() -> None:
    """Check that the `fit` extra is installed. Raises ConfigurationError (`train_extra_missing`)."""
    _require_packages(
        ("onnx", "onnxruntime", "scipy", "bm25s", "Stemmer", "matplotlib"), "A fit", "`pip install -e '.[cli,fit]'`"
    )


def _require_packages(packages: Sequence[str], work: str, installation: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ConfigurationError(
                "train_extra_missing", f"{work} needs {package}, which is not installed: {installation}."
            )


@contextmanager
def _fit_session() -> Iterator["TrainingConsole"]:
    """Show the progress of a fit, and report a full disk in one line."""
    from rich.console import Console

    from cli.terminal import TrainingConsole
    from models.training.storage import disk_failures

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that wait in a busy loop made a step 20 times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with TrainingConsole(Console(stderr=True)) as show, disk_failures():
        yield show


@contextmanager
def _training_session() -> Iterator["TrainingConsole"]:
    """Check that the `train` extra is installed, and silence the libraries."""
    require_train_extra()
    with _fit_session() as show:
        import logging

        import bm25s  # noqa: F401 (the import sets its logger to DEBUG, which setLevel below undoes)
        from datasets.utils.logging import disable_progress_bar
        from transformers.utils import logging as transformers_logging

        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        disable_progress_bar()
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        yield show
