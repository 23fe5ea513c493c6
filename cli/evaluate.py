"""`sparsewell eval collection`: measure relevance and latency on a judged collection through the live API."""

import json as jsonlib
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cli.relevance.collection import Collection
    from cli.relevance.session import Evaluation

_PACKAGES = ("sparsewell", "ir_measures", "pytrec_eval-terrier", "httpx", "tokenizers", "numpy")


def evaluate(  # noqa: PLR0913, PLR0917 (each argument is an option of the command)
    directory: Annotated[Path, typer.Argument(help="folder with corpus.jsonl (or .gz), queries.jsonl and qrels.tsv")],
    modes: Annotated[str, typer.Option(help="modes, separated by commas")] = "sparse,lexical,hybrid",
    api: Annotated[str | None, typer.Option(help="address of the API; default: of the settings")] = None,
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

    from cli.api_answers import api_address, connect
    from cli.relevance.collection import open_collection
    from cli.relevance.live import LiveIndex
    from cli.relevance.session import Evaluation, ask, checked_modes, checked_weights, ingest, warnings
    from cli.result_files import require_writable
    from services.settings import Settings

    # Whatever can be wrong is found out before the first document is sent.
    chosen = checked_modes(modes)
    fusion = checked_weights(weights) if weights is not None else None
    collection = open_collection(directory, queries, qrels)
    _require_metrics()
    if json is not None:
        require_writable(json)
    if run_dir is not None:
        require_writable(run_dir / ".sparsewell")
    address = api_address(Settings.read(), api)
    console = Console(stderr=True)
    with connect(address, timeout=30) as client, _progress(console) as progress:
        live = LiveIndex(client, index or _fresh_name(collection.name))
        created = live.create({})
        try:
            ingested = ingest(live, collection, progress)
            results = ask(live, collection, chosen, size, fusion, progress)
        finally:
            if not keep:
                live.delete()
    evaluation = Evaluation(ingested, created, results, warnings(collection, ingested, results, size))
    _print(Console(), console, collection, evaluation)
    if keep:
        console.print(f"The index {live.name!r} was kept.")
    if run_dir is not None:
        _write_runs(run_dir, collection, evaluation, console)
    if json is not None:
        report = _report(collection, evaluation, size, fusion)
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(jsonlib.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _require_metrics() -> None:
    """Check for the `eval` extra now and not after an hour of encoding."""
    from cli.relevance.metrics import measure

    measure({"query": {"document": 1}}, {"query": [("document", 1.0)]})


def _fresh_name(collection: str) -> str:
    return f"eval-{re.sub(r'[^a-z0-9_-]+', '-', collection.lower())[:60]}-{secrets.token_hex(4)}"


def _progress(console: Any) -> Any:
    from cli.relevance.progress import stages

    return stages(console)


def _print(out: Any, err: Any, collection: "Collection", evaluation: "Evaluation") -> None:
    from rich.table import Table

    from cli.relevance.live import percentiles
    from cli.relevance.metrics import MEASURES

    ingested = evaluation.ingested
    table = Table(
        title=f"{collection.name}: {ingested.loaded.accepted:,} documents, {len(collection.judged):,} queries, "
        f"encoder {evaluation.index['encoder']['name']} ({evaluation.index['encoder']['fingerprint']})"
    )
    table.add_column("mode")
    names = {"ndcg@10": "NDCG@10", "mrr@10": "MRR@10", "recall@100": "Recall@100"}
    for column in (*(names[name] for name in MEASURES), "p50 ms", "p90 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for mode, result in evaluation.modes.items():
        latency = percentiles(result.asked.client_ms)
        table.add_row(
            mode,
            *(f"{result.quality.mean[name]:.4f}" for name in MEASURES),
            *(f"{latency[name]:.1f}" if latency else "" for name in ("p50", "p90", "p99")),
        )
    out.print(table)
    for warning in evaluation.warnings:
        err.print(f"[yellow]Note:[/] {warning}", highlight=False)


def _write_runs(run_dir: Path, collection: "Collection", evaluation: "Evaluation", console: Any) -> None:
    from cli.relevance.metrics import write_run

    for mode, result in evaluation.modes.items():
        path = run_dir / f"{collection.name}.{mode}.trec"
        write_run(path, result.asked.rankings, f"sparsewell-{mode}")
        console.print(f"Wrote {path}", highlight=False)


def _report(
    collection: "Collection", evaluation: "Evaluation", size: int, weights: dict[str, float] | None
) -> dict[str, Any]:
    from cli.relevance.provenance import provenance

    ingested = evaluation.ingested
    return {
        "collection": {
            "name": collection.name,
            "documents": len(ingested.ids),
            "queries": len(collection.judged),
            "judgements": sum(map(len, collection.known_judgements().values())),
        },
        "index": {name: evaluation.index[name] for name in ("encoder", "window", "document_top_k", "language")},
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
        **provenance(_PACKAGES),
    }
