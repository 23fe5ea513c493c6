"""`sparsewell eval`: measure search on a judged collection, or chapters of talks.

`eval collection` loads a collection in BEIR's layout through the API (`cli.relevance.live`), prints the figures and the
latency of each search, and compares each with the first. `eval runs` (`cli.relevance.runs`) compares run files,
`eval report` (`cli.relevance.report`) shows stored results, and `eval chapters` (`cli.relevance.chapter_comparison`)
measures chapters.
"""

import re
import secrets
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cli.relevance.chapter_comparison import chapters
from cli.relevance.report import report
from cli.relevance.runs import runs
from cli.terminal import ApiOption

if TYPE_CHECKING:
    from cli.relevance.decisive_pieces import ExplainedChange
    from cli.relevance.live import Evaluation, LiveIndex, ModeResult, StageProgress
    from models.judged_collection import JudgedCollection
    from models.significance import PairedComparison

_DEFAULT_COMMAND = "collection"
_COMPARED_MEASURE = "ndcg@10"


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
    size: Annotated[int, typer.Option(min=10, max=1000, help="number of hits per query; 1000 for Recall@1000")] = 100,
    weights: Annotated[
        str | None, typer.Option(help="fusion weights of the sparse and the lexical list: .7,.3")
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="one more search: NAME={members of a search request in JSON}, as in "
            'reranked={"mode":"hybrid","rerank":{}}; repeatable'
        ),
    ] = None,
    fail_below: Annotated[
        list[str] | None,
        typer.Option(help="end with status 1 if a figure is lower: SEARCH:MEASURE=VALUE, as in hybrid:ndcg@10=.45"),
    ] = None,
    spec: Annotated[str, typer.Option(help='declaration of the index in JSON, as in {"windows":"nested"}')] = "{}",
    keep: Annotated[bool, typer.Option("--keep", help="keep the index at the end")] = False,
) -> None:
    """Load a judged collection through the API, and measure and compare searches.

    The figures are NDCG@10, MRR@10, MAP, Recall@100, Recall@1000 and latency. `sparsewell eval DIRECTORY` is short for
    this command.

    Example: sparsewell eval collection scifact --modes sparse,hybrid --json result.json
    """
    from rich.console import Console

    from cli.api_client import api_address, connect_api, require_writable
    from cli.relevance.live import (
        Evaluation,
        LiveIndex,
        ask_queries,
        find_warnings,
        ingest_collection,
        wait_until_adapted,
    )
    from cli.relevance.provenance import write_result
    from cli.relevance.search_options import (
        parse_modes,
        parse_searches,
        parse_spec,
        parse_thresholds,
        parse_weights,
    )
    from models.judged_collection import open_collection
    from services.settings import Settings

    # Check the options, packages and files before the first document is sent.
    fusion = parse_weights(weights) if weights is not None else None
    chosen = parse_searches(parse_modes(modes), fusion, search or [])
    thresholds = parse_thresholds(fail_below or [], chosen)
    declared = parse_spec(spec)
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
        created = live.create(declared)
        try:
            ingested = ingest_collection(live, collection, progress)
            adapted = wait_until_adapted(live.inspect)
            results = ask_queries(live, collection, chosen, size, progress, ingested.own)
            comparisons = _compare_with_first(results)
            decided = _explain_comparisons(live, collection, chosen, results, comparisons, progress)
        finally:
            if not keep:
                live.delete()
    evaluation = Evaluation(ingested, created, adapted, results, find_warnings(collection, ingested, results, size))
    _print_evaluation(Console(), console, collection, evaluation, comparisons)
    if keep:
        console.print(f"The index {live.name!r} was kept.")
    if run_dir is not None:
        _write_runs(run_dir, collection, evaluation, console)
    if json is not None:
        write_result(json, _build_report(collection, evaluation, size, chosen, comparisons, decided))
    missed = [
        f"{name} {measure}: {evaluation.modes[name].quality.mean[measure]:.4f} is below {least:g}"
        for name, measure, least in thresholds
        if evaluation.modes[name].quality.mean[measure] < least
    ]
    if missed:
        for line in missed:
            console.print(f"[red]{line}[/]", highlight=False)
        raise typer.Exit(1)


evaluate_app = typer.Typer(
    cls=_DefaultCommandGroup, no_args_is_help=True, help="Measure search on a judged collection, or chapters of talk."
)
evaluate_app.command(_DEFAULT_COMMAND)(evaluate)
evaluate_app.command("runs")(runs)
evaluate_app.command("report")(report)
evaluate_app.command("chapters")(chapters)


def _compare_with_first(results: "Mapping[str, ModeResult]") -> "dict[str, PairedComparison]":
    """Compare each search with the first, query by query."""
    from cli.relevance.runs import by_query
    from models.significance import compare_rankings

    figures = {name: by_query(result.quality, _COMPARED_MEASURE) for name, result in results.items()}
    base, *others = figures
    return {name: compare_rankings(figures[base], figures[name]) for name in others}


def _explain_comparisons(
    live: "LiveIndex",
    collection: "JudgedCollection",
    searches: Mapping[str, Mapping[str, Any]],
    results: "Mapping[str, ModeResult]",
    comparisons: "Mapping[str, PairedComparison]",
    progress: "StageProgress",
) -> "dict[str, list[ExplainedChange]]":
    """Explain the queries that changed the most between the first search and each other search."""
    from cli.relevance.decisive_pieces import explain_changes

    base = next(iter(searches))
    judgements = collection.known_judgements()
    explained: dict[str, list[ExplainedChange]] = {}
    for name, comparison in comparisons.items():
        changes = explain_changes(
            comparison,
            collection.judged,
            judgements,
            (results[base].answers.rankings, results[name].answers.rankings),
            (partial(live.explain, options=searches[base]), partial(live.explain, options=searches[name])),
        )
        explained[name] = []
        for change in changes:
            explained[name].append(change)
            progress(f"explaining ({name})", len(explained[name]), None)
    return explained


def _require_metrics() -> None:
    """Check for the `eval` extra before an hour of encoding."""
    from cli.relevance.metrics import measure_rankings

    measure_rankings({"query": {"document": 1}}, {"query": [("document", 1.0)]})


def _unused_index_name(collection: str) -> str:
    return f"eval-{re.sub(r'[^a-z0-9_-]+', '-', collection.lower())[:60]}-{secrets.token_hex(4)}"


def _evaluation_progress(console: Any) -> Any:
    from cli.terminal import show_stages

    return show_stages(console)


def _print_evaluation(
    out: Any,
    err: Any,
    collection: "JudgedCollection",
    evaluation: "Evaluation",
    comparisons: "Mapping[str, PairedComparison]",
) -> None:
    from rich.table import Table

    from cli.relevance.metrics import MEASURE_TITLES, MEASURES, percentiles
    from cli.relevance.runs import describe_comparison

    ingested = evaluation.ingested
    table = Table(
        title=f"{collection.name}: {ingested.loaded.accepted:,} documents, {len(collection.judged):,} queries, "
        f"encoder {evaluation.index['encoder']['name']} ({evaluation.index['encoder']['fingerprint']})"
    )
    table.add_column("search")
    for column in (*(MEASURE_TITLES[name] for name in MEASURES), "p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for mode, result in evaluation.modes.items():
        latency = percentiles(result.answers.client_ms)
        table.add_row(
            mode,
            *(f"{result.quality.mean[name]:.4f}" for name in MEASURES),
            *(f"{latency[name]:.1f}" if latency else "" for name in ("p50", "p99")),
        )
    out.print(table)
    base = next(iter(evaluation.modes))
    for name, comparison in comparisons.items():
        out.print(f"{name} over {base}: {describe_comparison(comparison, _COMPARED_MEASURE)}", highlight=False)
    for warning in evaluation.warnings:
        err.print(f"[yellow]Note:[/] {warning}", highlight=False)


def _write_runs(run_dir: Path, collection: "JudgedCollection", evaluation: "Evaluation", console: Any) -> None:
    from cli.relevance.runs import write_run

    for mode, result in evaluation.modes.items():
        path = run_dir / f"{collection.name}.{mode}.trec"
        write_run(path, result.answers.rankings, f"sparsewell-{mode}")
        console.print(f"Wrote {path}", highlight=False)


def _build_report(
    collection: "JudgedCollection",
    evaluation: "Evaluation",
    size: int,
    searches: Mapping[str, Mapping[str, Any]],
    comparisons: "Mapping[str, PairedComparison]",
    decided: "Mapping[str, list[ExplainedChange]]",
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
        "searches": searches,
        "modes": {mode: result.as_json(len(collection.judged)) for mode, result in evaluation.modes.items()},
        "comparisons_with_first": {
            name: comparison.as_json() | {"explained": [change.as_json() for change in decided[name]]}
            for name, comparison in comparisons.items()
        },
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
