"""TREC runs: files of rankings, and the command `sparsewell eval runs` that compares them.

A line of a run has query, Q0, document, rank, score and tag. Any system's run of the same queries can be measured
beside a run of sparsewell.
"""

import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.relevance.metrics import (
    MEASURE_TITLES,
    MEASURES,
    RankingQuality,
    Rankings,
    break_ties,
    measure_rankings,
)
from services.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from models.judged_collection import Judgements
    from models.significance import PairedComparison


def write_run(path: Path, rankings: Rankings, tag: str) -> None:
    """Write a TREC run: query, Q0, document, rank from 1, score, tag. Spaces in ids become underscores.

    Ties are in trec_eval's order. Where rules placed a hit against the scores, the scores become descending numbers,
    because trec_eval reads scores and not ranks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for query, ranking in rankings.items():
            ordered = break_ties(ranking)
            scores = [score for _, score in ordered]
            if any(later > earlier for earlier, later in pairwise(scores)):
                scores = [float(len(ordered) - rank) for rank in range(len(ordered))]
            for rank, ((document, _), score) in enumerate(zip(ordered, scores, strict=True), 1):
                file.write(f"{_replace_spaces(query)} Q0 {_replace_spaces(document)} {rank} {score:.9g} {tag}\n")


def read_run(path: Path) -> dict[str, list[tuple[str, float]]]:
    """Read a TREC run as trec_eval does: by descending score, ties by descending document id.

    Raises ConfigurationError (`run_not_found`), InvalidInput (`malformed_run`) with file and line.
    """
    scores: dict[str, dict[str, float]] = {}
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    query, document, score = _read_line(path, number, raw)
                    if document in scores.setdefault(query, {}):
                        raise _malformed(path, number, f"the document {document[:80]!r} is repeated")
                    scores[query][document] = score
    except OSError as error:
        raise ConfigurationError("run_not_found", f"{path} cannot be read ({type(error).__name__}).") from None
    if not scores:
        raise InvalidInput("malformed_run", f"{path} has no line.")
    return {
        query: sorted(hits.items(), key=lambda hit: (hit[1], hit[0]), reverse=True) for query, hits in scores.items()
    }


def measure_run(judgements: "Judgements", run: Rankings, path: Path) -> RankingQuality:
    """Measure a run over all judged queries. Raises InvalidInput (`malformed_run`) if it answers none of them."""
    if not judgements.keys() & run.keys():
        raise InvalidInput(
            "malformed_run",
            f"{path} answers none of the judged queries: it belongs to other queries (its first is "
            f"{next(iter(run))[:80]!r}, the first judged is {next(iter(judgements))[:80]!r}).",
        )
    return measure_rankings(judgements, run)


def runs(
    files: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="TREC runs; the first is the baseline")],
    judgements: Annotated[Path, typer.Option("--qrels", help="judgements, or the folder of a collection with them")],
    measure: Annotated[str, typer.Option(help="measure that is compared: " + ", ".join(MEASURES))] = "ndcg@10",
    json: Annotated[Path | None, typer.Option(help="file for the figures, in JSON")] = None,
) -> None:
    """Measure TREC runs, and compare each with the first: difference, 95 % interval, chance, queries gained and lost.

    Example: sparsewell eval runs bm25.trec hybrid.trec --qrels scifact
    """
    from rich.console import Console

    from cli.api_client import require_writable
    from cli.relevance.provenance import write_result
    from models.judged_collection import find_judgements, read_judgements
    from models.significance import compare_rankings

    require_measure(measure)
    if json is not None:
        require_writable(json)
    grades = read_judgements(find_judgements(judgements) if judgements.is_dir() else judgements)
    measured = {str(path): measure_run(grades, read_run(path), path) for path in files}
    base, *others = measured
    comparisons = {
        name: compare_rankings(by_query(measured[base], measure), by_query(measured[name], measure)) for name in others
    }
    print_runs(Console(), len(grades), measured, measure, comparisons)
    if json is not None:
        report = {
            "queries": len(grades),
            "measure": measure,
            "runs": {name: quality.rounded_means() for name, quality in measured.items()},
            "compared_with": base,
            "comparisons": {name: comparison.as_json() for name, comparison in comparisons.items()},
        }
        write_result(json, report)


def require_measure(name: str) -> str:
    """Return the name of a measure. Raises InvalidInput (`unknown_measure`)."""
    if name not in MEASURES:
        raise InvalidInput("unknown_measure", f"There is no measure {name[:40]!r}: {', '.join(MEASURES)}.")
    return name


def by_query(quality: RankingQuality, measure: str) -> dict[str, float]:
    """Return one figure of each query."""
    return {query: figures[measure] for query, figures in quality.by_query.items()}


def print_runs(
    out: Any,
    queries: int,
    measured: dict[str, RankingQuality],
    measure: str,
    comparisons: "dict[str, PairedComparison]",
) -> None:
    """Print the figures of each run and a sentence for each comparison."""
    from rich.table import Table

    table = Table(title=f"{queries:,} judged queries")
    table.add_column("run")
    for name in MEASURES:
        table.add_column(MEASURE_TITLES[name], justify="right")
    for label, quality in measured.items():
        table.add_row(label, *(f"{quality.mean[name]:.4f}" for name in MEASURES))
    out.print(table)
    for label, comparison in comparisons.items():
        out.print(f"{label}: {describe_comparison(comparison, measure)}", highlight=False)


def describe_comparison(comparison: "PairedComparison", measure: str) -> str:
    """Return a sentence about the difference from the baseline."""
    chance = "beyond chance" if comparison.is_beyond_chance else "within chance"
    return (
        f"{MEASURE_TITLES[measure]} {comparison.difference:+.4f} ({comparison.low:+.4f} to {comparison.high:+.4f}, "
        f"p {comparison.p:.4f}, {chance}); {comparison.gained_count:,} queries gained, {comparison.lost_count:,} lost"
    )


def _read_line(path: Path, number: int, raw: bytes) -> tuple[str, str, float]:
    try:
        columns = raw.decode().split()
    except UnicodeDecodeError:
        raise _malformed(path, number, "not UTF-8") from None
    if len(columns) != 6:
        raise _malformed(path, number, f"expected query, Q0, document, rank, score and tag, found {len(columns)} words")
    try:
        score = float(columns[4])
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise _malformed(path, number, f"the score {columns[4][:40]!r} is not a number")
    return columns[0], columns[2], score


def _malformed(path: Path, line: int, problem: str) -> InvalidInput:
    return InvalidInput("malformed_run", f"{path}, line {line}: {problem}.")


def _replace_spaces(identifier: str) -> str:
    return "_".join(identifier.split())
