"""`sparsewell eval`: measure search on a judged collection, or chapters of talks.

`eval collection` loads a collection in BEIR's layout through the API (`cli.relevance.live`) and prints NDCG@10, MRR@10,
Recall@100 and latency of each mode. `eval chapters` compares the chapters of engines and baselines with human ones
(`cli.relevance.segmentation`).
"""

import hashlib
import json as jsonlib
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cli.terminal import ApiOption

if TYPE_CHECKING:
    from cli.relevance.collection import JudgedCollection
    from cli.relevance.live import Evaluation
    from cli.relevance.segmentation import ChapteringMethod, ChapteringResult
    from models.chapters.engine import AnnotatedEpisode
    from models.encoder import Encoder
    from services.settings import Settings

_COLUMNS = {
    "pk": "Pk",
    "window_diff": "WindowDiff",
    "boundary_similarity": "boundaries",
    "chapters_per_human": "chapters",
    "title_rouge_l": "ROUGE-L",
    "title_similarity": "similarity",
    "seconds_an_hour": "s/hour",
}
_DEFAULT_COMMAND = "collection"


class _DefaultCommandGroup(TyperGroup):
    """A group that reads `sparsewell eval DIRECTORY` as `sparsewell eval collection DIRECTORY`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [_DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


def evaluate(  # noqa: PLR0913, PLR0917 (each argument is an option of the command)
    directory: Annotated[Path, typer.Argument(help="folder with corpus.jsonl (or .gz), queries.jsonl and qrels.tsv")],
    modes: Annotated[str, typer.Option(help="modes, separated by commas")] = "sparse,lexical,hybrid",
    api: ApiOption = None,
    index: Annotated[str | None, typer.Option(help="name of the new index; default: a generated name")] = None,
    json: Annotated[Path | None, typer.Option(help="file for the figures and their provenance, in JSON")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="directory for a TREC run file of each mode")] = None,
    qrels: Annotated[Path | None, typer.Option(help="judgements; default: DIRECTORY/qrels.tsv")] = None,
    queries: Annotated[Path | None, typer.Option(help="queries; default: DIRECTORY/queries.jsonl")] = None,
    size: Annotated[int, typer.Option(min=10, help="number of hits per query")] = 100,
    weights: Annotated[
        str | None, typer.Option(help="fusion weights of the sparse and the lexical list: .7,.3")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="keep the index at the end")] = False,
) -> None:
    """Load a judged collection through the API and measure NDCG@10, MRR@10, Recall@100 and latency.

    `sparsewell eval DIRECTORY` is short for this command.

    Example: sparsewell eval collection scifact --modes sparse,hybrid --json result.json
    """
    from rich.console import Console

    from cli.api_client import api_address, connect_api, require_writable
    from cli.relevance.collection import open_collection
    from cli.relevance.live import (
        Evaluation,
        LiveIndex,
        ask_queries,
        find_warnings,
        ingest_collection,
        parse_modes,
        parse_weights,
        wait_until_adapted,
    )
    from services.settings import Settings

    # Check the options, packages and files before the first document is sent.
    chosen = parse_modes(modes)
    fusion = parse_weights(weights) if weights is not None else None
    collection = open_collection(directory, queries, qrels)
    _require_metrics()
    if json is not None:
        require_writable(json)
    if run_dir is not None:
        require_writable(run_dir / ".sparsewell")
    address = api_address(Settings.read(), api)
    console = Console(stderr=True)
    with connect_api(address, timeout=30) as client, _evaluation_progress(console) as progress:
        live = LiveIndex(client, index or _unused_index_name(collection.name))
        created = live.create({})
        try:
            ingested = ingest_collection(live, collection, progress)
            adapted = wait_until_adapted(live.inspect)
            results = ask_queries(live, collection, chosen, size, fusion, progress)
        finally:
            if not keep:
                live.delete()
    evaluation = Evaluation(ingested, created, adapted, results, find_warnings(collection, ingested, results, size))
    _print_evaluation(Console(), console, collection, evaluation)
    if keep:
        console.print(f"The index {live.name!r} was kept.")
    if run_dir is not None:
        _write_runs(run_dir, collection, evaluation, console)
    if json is not None:
        report = _build_report(collection, evaluation, size, fusion)
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(jsonlib.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def chapters(  # noqa: PLR0913, PLR0917 (each argument is an option of the command)
    episodes: Annotated[
        list[Path], typer.Argument(metavar="EPISODES...", help="files of episodes with chapters (.jsonl, .gz)")
    ],
    engines: Annotated[str, typer.Option(help="engines, separated by commas: tiling, podtile")] = "tiling",
    model: Annotated[str | None, typer.Option(help="model directory for podtile; default: from the settings")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="name or directory of the encoder; default: from the settings")
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="measure the baselines as well: one chapter, equal lengths, chance, TextTiling")
    ] = True,
    half: Annotated[str, typer.Option(help="episodes to use: held-out, tuning or all; their ids decide")] = "held-out",
    limit: Annotated[
        int | None, typer.Option(min=1, help="maximum number of episodes of each file, in hash order")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.0, help="time limit of an engine for an episode, in seconds")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="file for the figures and their provenance, in JSON")] = None,
) -> None:
    """Compare generated chapters with human ones: Pk, WindowDiff, boundary similarity, titles and time.

    Example: sparsewell eval chapters shows.jsonl.gz --limit 50 --json result.json
    """
    from rich.console import Console

    from cli.api_client import require_writable
    from cli.relevance.provenance import CHAPTER_PACKAGES, collect_provenance
    from cli.relevance.segmentation import TitleSimilarity, compare_methods, score_rouge_l, score_segmentation
    from models.registry import load_encoder
    from services.settings import Settings

    settings = Settings.read()
    names = _require_known(engines, ("tiling", "podtile"), "engines")
    _require_known(half, ("held-out", "tuning", "all"), "half")
    # Check the options, packages and files before the first episode.
    score_segmentation([1], [1], 9), score_rouge_l("a", "a")
    if json is not None:
        require_writable(json)
    loaded = load_encoder(encoder or settings.encoder, threads=settings.worker_threads)
    methods = _make_methods(names, loaded, settings, model, seconds, baselines)
    titles = TitleSimilarity(loaded)
    sets: dict[str, Any] = {}
    for path in episodes:
        chosen = _choose_episodes(path, half, limit)
        with _chapter_progress(path.name, len(chosen)) as done:
            results_by_method = compare_methods(methods, chosen, done)
        sets[path.name] = {name: results.figures(titles) for name, results in results_by_method.items()}
        _print_chapters(Console(), path.name, len(chosen), half, sets[path.name])
    if json is not None:
        report = {"half": half, "encoder": loaded.fingerprint, "sets": sets, **collect_provenance(CHAPTER_PACKAGES)}
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(jsonlib.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


evaluate_app = typer.Typer(
    cls=_DefaultCommandGroup, no_args_is_help=True, help="Measure search on a judged collection, or chapters of talk."
)
evaluate_app.command(_DEFAULT_COMMAND)(evaluate)
evaluate_app.command("chapters")(chapters)


def _require_known(text: str, known: Sequence[str], option: str) -> list[str]:
    from services.errors import InvalidInput

    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InvalidInput("bad_option", f"--{option} takes {', '.join(known)}, not {', '.join(unknown) or 'nothing'}.")
    return names


def _make_methods(
    names: Sequence[str],
    encoder: "Encoder",
    settings: "Settings",
    model: str | None,
    seconds: float | None,
    baselines: bool,
) -> dict[str, "ChapteringMethod"]:
    """Return the baselines, the engines (with chapters, and with titles only) and the human chapters, by name."""
    from cli.relevance.segmentation import (
        divide_by_nltk,
        divide_by_texttiling,
        divide_equally,
        divide_not_at_all,
        divide_randomly,
        make_division_method,
        make_title_method,
        reference_chapters,
    )
    from models.chapters.engine import ProposedChapter
    from models.chapters.maker import EngineChapterMaker, open_chapter_engine

    def make_engine_method(maker: EngineChapterMaker) -> "ChapteringMethod":
        def method(annotated: "AnnotatedEpisode") -> "ChapteringResult":
            return maker.chapters(annotated.episode, seconds)

        return method

    methods: dict[str, ChapteringMethod] = {}
    if baselines:
        methods["one chapter"] = make_division_method(divide_not_at_all)
        methods["equal lengths"] = make_division_method(divide_equally)
        methods["chance"] = make_division_method(divide_randomly)
        methods["TextTiling (NLTK)"] = make_division_method(divide_by_nltk)
        methods["TextTiling"] = make_division_method(divide_by_texttiling)
    for name in names:
        engine = open_chapter_engine(name, encoder, model or settings.chapter_model, threads=settings.worker_threads)
        methods[name] = make_engine_method(EngineChapterMaker(engine))
        titler = getattr(engine, "titled", None) or (lambda _, starts: [ProposedChapter(start) for start in starts])
        methods[f"{name}: titles"] = make_title_method(titler)
    methods["given"] = reference_chapters
    return methods


def _choose_episodes(path: Path, half: str, limit: int | None) -> "list[AnnotatedEpisode]":
    from models.chapters.engine import read_episodes

    halves = {"held-out": (True,), "tuning": (False,), "all": (True, False)}[half]
    chosen = [episode for episode in read_episodes(path) if episode.held_out in halves]
    chosen.sort(key=lambda episode: hashlib.sha256(episode.id.encode()).digest())
    return chosen[:limit]


@contextmanager
def _chapter_progress(name: str, count: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(name, total=count)
        yield lambda: bars.advance(task)


def _print_chapters(out: Any, name: str, count: int, half: str, rows: dict[str, dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(title=f"{name}: {count:,} episodes ({half})")
    table.add_column("")
    for column in _COLUMNS.values():
        table.add_column(column, justify="right")
    for method, figures in rows.items():
        table.add_row(method, *(_format_score(figures.get(column)) for column in _COLUMNS))
    out.print(table)
    for method, figures in rows.items():
        for repair, times in figures.get("repairs", {}).items():
            out.print(f"{method}: {repair} {times:,} times", highlight=False)


def _format_score(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value >= 10 else f"{value:.3f}"


def _require_metrics() -> None:
    """Check for the `eval` extra before an hour of encoding."""
    from cli.relevance.metrics import measure_rankings

    measure_rankings({"query": {"document": 1}}, {"query": [("document", 1.0)]})


def _unused_index_name(collection: str) -> str:
    return f"eval-{re.sub(r'[^a-z0-9_-]+', '-', collection.lower())[:60]}-{secrets.token_hex(4)}"


def _evaluation_progress(console: Any) -> Any:
    from cli.terminal import show_stages

    return show_stages(console)


def _print_evaluation(out: Any, err: Any, collection: "JudgedCollection", evaluation: "Evaluation") -> None:
    from rich.table import Table

    from cli.relevance.metrics import MEASURE_TITLES, MEASURES, percentiles

    ingested = evaluation.ingested
    table = Table(
        title=f"{collection.name}: {ingested.loaded.accepted:,} documents, {len(collection.judged):,} queries, "
        f"encoder {evaluation.index['encoder']['name']} ({evaluation.index['encoder']['fingerprint']})"
    )
    table.add_column("mode")
    for column in (*(MEASURE_TITLES[name] for name in MEASURES), "p50 ms", "p90 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for mode, result in evaluation.modes.items():
        latency = percentiles(result.answers.client_ms)
        table.add_row(
            mode,
            *(f"{result.quality.mean[name]:.4f}" for name in MEASURES),
            *(f"{latency[name]:.1f}" if latency else "" for name in ("p50", "p90", "p99")),
        )
    out.print(table)
    for warning in evaluation.warnings:
        err.print(f"[yellow]Note:[/] {warning}", highlight=False)


def _write_runs(run_dir: Path, collection: "JudgedCollection", evaluation: "Evaluation", console: Any) -> None:
    from cli.relevance.metrics import write_run

    for mode, result in evaluation.modes.items():
        path = run_dir / f"{collection.name}.{mode}.trec"
        write_run(path, result.answers.rankings, f"sparsewell-{mode}")
        console.print(f"Wrote {path}", highlight=False)


def _build_report(
    collection: "JudgedCollection", evaluation: "Evaluation", size: int, weights: dict[str, float] | None
) -> dict[str, Any]:
    from cli.relevance.provenance import COLLECTION_PACKAGES, collect_provenance

    ingested = evaluation.ingested
    return {
        "collection": {
            "name": collection.name,
            "documents": len(ingested.ids),
            "queries": len(collection.judged),
            "judgements": sum(map(len, collection.known_judgements().values())),
        },
        "index": {name: evaluation.index[name] for name in ("encoder", "window", "document_top_k", "language")},
        "adapted_query_weights": evaluation.adapted,
        "size": size,
        "weights": weights or "the API's default",
        "modes": {mode: result.as_json(len(collection.judged)) for mode, result in evaluation.modes.items()},
        "ingestion": {
            "accepted": ingested.loaded.accepted,
            "rejected": ingested.loaded.rejected[:100],
            "without_text": len(ingested.empty),
            "states": ingested.states,
            "documents_a_second": round(ingested.documents_a_second, 1),
        },
        "warnings": evaluation.warnings,
        **collect_provenance(COLLECTION_PACKAGES),
    }
