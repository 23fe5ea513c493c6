"""`sparsewell eval chapters`: compare the chapters of engines and baselines with human ones.

The measures are those of `cli.relevance.segmentation`.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
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
    "title_rouge_l_f1": "both ways",
    "title_similarity": "similarity",
    "seconds_an_hour": "s/hour",
}


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
    from cli.relevance.provenance import CHAPTER_PACKAGES, collect_provenance, write_result
    from cli.relevance.segmentation import compare_methods, score_rouge_l, score_segmentation
    from cli.relevance.title_comparison import TitleSimilarity
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
        write_result(json, report, indent=1)


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
