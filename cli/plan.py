"""`sparsewell plan`: estimate shards, nodes, memory, disk, workers and costs of a deployment.

The command reads a need from its options and measured coefficients from a file (`python -m benchmarks capacity_fit
FILE` writes the file), and prints each figure of `cli.planning` with its formula. SHIPPED_FILE holds the coefficients
of the machine of the committed results. See docs/capacity.md.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.planning import (
    MODES,
    CapacityNeed,
    Coefficients,
    Cost,
    IngestCosts,
    LinearCost,
    Machine,
    SearchCost,
    make_plan,
    parse_amount,
    parse_duration,
)
from services.errors import ConfigurationError

SHIPPED_FILE = Path(__file__).with_name("plan_coefficients.json")


def plan(  # noqa: PLR0913, PLR0917 (each is an option of the command)
    docs: Annotated[str, typer.Option(help="number of documents: 500k, 50M")],
    qps: Annotated[str, typer.Option(help="searches per second at peak")],
    p99: Annotated[str, typer.Option(help="99th percentile of the latency: 50ms")],
    words: Annotated[float, typer.Option(help="average number of words of a document")] = 200,
    mode: Annotated[str, typer.Option(help="mode of the searches: hybrid, sparse or lexical")] = "hybrid",
    changed: Annotated[float, typer.Option(help="share of the documents that changes per day")] = 0.01,
    load_days: Annotated[float, typer.Option(help="days that the first load may take")] = 3,
    replicas: Annotated[int, typer.Option(help="replicas of each shard")] = 1,
    busy: Annotated[float, typer.Option(help="share of the cores in use at peak")] = 0.5,
    cores: Annotated[int, typer.Option(min=1, help="cores of a data node")] = 8,
    memory: Annotated[float, typer.Option(min=2, help="memory of a data node, in GiB")] = 32,
    core_hour: Annotated[float, typer.Option(min=0, help="price of a core per hour")] = 0.04,
    gib_hour: Annotated[float, typer.Option(min=0, help="price of a GiB of memory per hour")] = 0.005,
    disk_month: Annotated[float, typer.Option(min=0, help="price of a GiB of disk per month")] = 0.10,
    gpu_documents: Annotated[
        float, typer.Option(min=0, help="measured number of documents that a GPU encodes per second; 0: no GPU")
    ] = 0,
    gpu_hour: Annotated[float, typer.Option(min=0, help="price of a GPU per hour")] = 2.5,
    coefficients: Annotated[
        Path | None, typer.Option(help="file with coefficients measured on your machines, see docs/capacity.md")
    ] = None,
    speed: Annotated[float, typer.Option(min=0.01, help="speed of your cores, relative to the measured cores")] = 1,
    formulas: Annotated[bool, typer.Option(help="show the formula of each figure")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Estimate the machines for a number of documents and searches, from measured coefficients.

    docs/capacity.md explains the formulas, the measurements and the errors.

    Example: sparsewell plan --docs 50M --qps 300 --p99 50ms
    """
    if mode not in MODES:
        raise ConfigurationError("bad_plan", f"--mode {mode!r} is not one of {', '.join(MODES)}.")
    need = CapacityNeed(
        docs=parse_amount(docs, "--docs"),
        qps=parse_amount(qps, "--qps"),
        p99=parse_duration(p99, "--p99"),
        words=words,
        mode=mode,
        changed=changed,
        load_days=load_days,
        replicas=replicas,
        busy=busy,
    )
    machine = Machine(cores, memory, core_hour, gib_hour, disk_month, gpu_documents, gpu_hour)
    measured, ingest, source = read_coefficients(coefficients or SHIPPED_FILE, speed)
    figures = make_plan(need, machine, measured, ingest).figures
    if as_json:
        typer.echo(json.dumps({"figures": [asdict(figure) for figure in figures], "measured": source}, indent=2))
        return
    for figure in figures:
        typer.echo(f"{figure.name:>26}  {_format_value(figure.value):>12} {figure.unit}")
        if formulas:
            typer.echo(f"{'':26}  {'':12}   = {figure.formula}")
    typer.echo(f"\nMeasured on {source}. Not included: Redis (1 GiB suffices), three managers, backups, reranking.")


def _format_value(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.2f}"


def read_coefficients(path: Path, speed: float = 1) -> tuple[Coefficients, IngestCosts, str]:
    """Read the coefficients, scale them to cores of a relative `speed`, and return the machine they were measured on.

    Raises ConfigurationError (`bad_coefficients`).
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        coefficients = _parse_coefficients(content["coefficients"])
        ingest = IngestCosts(**content["working"])
        source = str(content["measured_on"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError("bad_coefficients", f"{path} is not a file of coefficients: {error}.") from None
    search = {
        mode: SearchCost(cost.node.faster(speed), cost.api / speed, cost.clock.faster(speed), cost.tail)
        for mode, cost in coefficients.search.items()
    }
    scaled = replace(
        ingest,
        encode_ms_a_piece=ingest.encode_ms_a_piece / speed,
        index_ms_a_piece=ingest.index_ms_a_piece / speed,
        journal_ms_a_document=ingest.journal_ms_a_document / speed,
    )
    return replace(coefficients, search=search), scaled, source


def _parse_coefficients(content: dict[str, Any]) -> Coefficients:
    """Parse coefficients as `dataclasses.asdict` writes them."""
    return Coefficients(
        content["pieces_a_word"],
        LinearCost(**content["stored"]),
        LinearCost(**content["searched"]),
        {mode: _parse_search_cost(cost) for mode, cost in content["search"].items()},
        content["at_random"],
    )


def _parse_search_cost(content: dict[str, Any]) -> SearchCost:
    return SearchCost(Cost(**content["node"]), content["api"], Cost(**content["clock"]), content["tail"])
