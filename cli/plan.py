"""`sparsewell plan`: estimate shards, nodes, memory, disk, workers and costs of a deployment."""

from pathlib import Path
from typing import Annotated

import typer


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
    speed: Annotated[
        float, typer.Option(min=0.01, help="speed of your cores, relative to those of the measurement")
    ] = 1,
    formulas: Annotated[bool, typer.Option(help="show the formula of each figure")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Estimate the machines for a number of documents and searches, from measured coefficients.

    docs/capacity.md explains the formulas, the measurements and the errors.

    Example: sparsewell plan --docs 50M --qps 300 --p99 50ms
    """
    import json
    from dataclasses import asdict

    from cli.planning.coefficients import SHIPPED, read
    from cli.planning.costs import MODES
    from cli.planning.need import Machine, Need, amount, duration
    from cli.planning.plan import planned
    from services.errors import ConfigurationError

    if mode not in MODES:
        raise ConfigurationError("bad_plan", f"--mode {mode!r} is not one of {', '.join(MODES)}.")
    need = Need(
        amount(docs, "--docs"), amount(qps, "--qps"), duration(p99, "--p99"), words, mode, changed, load_days, replicas,
        busy,
    )  # fmt: skip
    measured, working, source = read(coefficients or SHIPPED, speed)
    found = planned(
        need, Machine(cores, memory, core_hour, gib_hour, disk_month, gpu_documents, gpu_hour), measured, working
    )
    if as_json:
        typer.echo(json.dumps({"figures": [asdict(one) for one in found.figures], "measured": source}, indent=2))
        return
    for one in found.figures:
        typer.echo(f"{one.name:>26}  {_shown(one.value):>12} {one.unit}")
        if formulas:
            typer.echo(f"{'':26}  {'':12}   = {one.formula}")
    typer.echo(f"\nMeasured on {source}. Not included: Redis (1 GiB suffices), three managers, backups, reranking.")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.2f}"
