"""`sparsewell eval chapters`: chapters of engines and of simpler ways beside those that people made."""

import hashlib
import json as jsonlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cli.segmentation.comparison import Made, Way
    from models.chapters.episodes import Chaptered
    from models.encoder import Encoder
    from services.settings import Settings

_PACKAGES = (
    "sparsewell",
    "segeval",
    "rouge-score",
    "nltk",
    "numpy",
    "onnxruntime",
    "tokenizers",
    "torch",
    "transformers",
)
_COLUMNS = {
    "pk": "Pk",
    "window_diff": "WindowDiff",
    "boundary_similarity": "boundaries",
    "chapters_per_human": "chapters",
    "title_rouge_l": "ROUGE-L",
    "title_similarity": "similarity",
    "seconds_an_hour": "s/hour",
}


def chapters(  # noqa: PLR0913, PLR0917 (each argument is an option of the command)
    episodes: Annotated[
        list[Path], typer.Argument(metavar="EPISODES...", help="files of episodes with chapters (.jsonl, .gz)")
    ],
    engines: Annotated[str, typer.Option(help="engines, separated by commas: tiling, podtile")] = "tiling",
    model: Annotated[str | None, typer.Option(help="model directory for podtile; default: of the settings")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="name or directory of the encoder; default: of the settings")
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

    from cli.relevance.provenance import provenance
    from cli.result_files import require_writable
    from cli.segmentation.comparison import compare
    from cli.segmentation.measures import Titles, likeness, rouge_l
    from models.registry import load_encoder
    from services.settings import Settings

    settings = Settings.read()
    names = _checked(engines, ("tiling", "podtile"), "engines")
    _checked(half, ("held-out", "tuning", "all"), "half")
    # Whatever can be wrong is found out before the first episode is read.
    likeness([1], [1], 9), rouge_l("a", "a")
    if json is not None:
        require_writable(json)
    loaded = load_encoder(encoder or settings.encoder, threads=settings.worker_threads)
    ways = _ways(names, loaded, settings, model, seconds, baselines)
    titles = Titles(loaded)
    sets: dict[str, Any] = {}
    for path in episodes:
        chosen = _chosen(path, half, limit)
        with _progress(path.name, len(chosen)) as done:
            tallies = compare(ways, chosen, done)
        sets[path.name] = {name: tally.figures(titles) for name, tally in tallies.items()}
        _print(Console(), path.name, len(chosen), half, sets[path.name])
    if json is not None:
        report = {"half": half, "encoder": loaded.fingerprint, "sets": sets, **provenance(_PACKAGES)}
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(jsonlib.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _checked(given: str, known: Sequence[str], option: str) -> list[str]:
    from services.errors import InvalidInput

    names = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InvalidInput("bad_option", f"--{option} takes {', '.join(known)}, not {', '.join(unknown) or 'nothing'}.")
    return names


def _ways(
    names: Sequence[str],
    encoder: "Encoder",
    settings: "Settings",
    model: str | None,
    seconds: float | None,
    simple: bool,
) -> dict[str, "Way"]:
    from cli.segmentation import baselines
    from cli.segmentation.comparison import divided, given, titled
    from models.chapters.engine import Proposed
    from models.chapters.opening import ChapterMaker, open_engine

    def made(maker: ChapterMaker) -> "Way":
        def way(one: "Chaptered") -> "Made":
            return maker.chapters(one.episode, seconds)

        return way

    ways: dict[str, Way] = {}
    if simple:
        ways["one chapter"] = divided(baselines.one_chapter)
        ways["equal lengths"] = divided(baselines.equal)
        ways["chance"] = divided(baselines.chance)
        ways["TextTiling (NLTK)"] = divided(baselines.texttiling_nltk)
        ways["TextTiling"] = divided(baselines.texttiling)
    for name in names:
        engine = open_engine(name, encoder, model or settings.chapter_model, threads=settings.worker_threads)
        ways[name] = made(ChapterMaker(engine))
        titler = getattr(engine, "titled", None) or (lambda _, starts: [Proposed(start) for start in starts])
        ways[f"{name}: titles"] = titled(titler)
    ways["given"] = given
    return ways


def _chosen(path: Path, half: str, limit: int | None) -> "list[Chaptered]":
    from models.chapters.episodes import read_episodes

    wanted = {"held-out": (True,), "tuning": (False,), "all": (True, False)}[half]
    found = [one for one in read_episodes(path) if one.held_out in wanted]
    found.sort(key=lambda one: hashlib.sha256(one.id.encode()).digest())
    return found[:limit]


@contextmanager
def _progress(name: str, count: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(name, total=count)
        yield lambda: bars.advance(task)


def _print(out: Any, name: str, count: int, half: str, rows: dict[str, dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(title=f"{name}: {count:,} episodes ({half})")
    table.add_column("")
    for column in _COLUMNS.values():
        table.add_column(column, justify="right")
    for way, figures in rows.items():
        table.add_row(way, *(_shown(figures.get(column)) for column in _COLUMNS))
    out.print(table)
    for way, figures in rows.items():
        for repair, times in figures.get("repairs", {}).items():
            out.print(f"{way}: {repair} {times:,} times", highlight=False)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value >= 10 else f"{value:.3f}"
