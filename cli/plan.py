"""`sparsewell plan`: shards, nodes, memory, disk, workers and money for a number of documents and searches."""

from pathlib import Path
from typing import Annotated

import typer


def plan(  # noqa: PLR0913, PLR0917 (each is an option of the command)
    docs: Annotated[str, typer.Option(help="documents: 500k, 50M")],
    qps: Annotated[str, typer.Option(help="searches a second at the busiest time")],
    p99: Annotated[str, typer.Option(help="all but one in a hundred are answered within: 50ms")],
    words: Annotated[float, typer.Option(help="of a document, on average")] = 200,
    mode: Annotated[str, typer.Option(help="hybrid, sparse or lexical")] = "hybrid",
    changed: Annotated[float, typer.Option(help="share of the documents that is written anew a day")] = 0.01,
    load_days: Annotated[float, typer.Option(help="days that the first load may take")] = 3,
    replicas: Annotated[int, typer.Option(help="further copies of each shard")] = 1,
    busy: Annotated[float, typer.Option(help="share of the cores that is used at the busiest time")] = 0.5,
    cores: Annotated[int, typer.Option(min=1, help="of a data node")] = 8,
    memory: Annotated[float, typer.Option(min=2, help="of a data node, in GiB")] = 32,
    core_hour: Annotated[float, typer.Option(min=0, help="price of a core for an hour")] = 0.04,
    gib_hour: Annotated[float, typer.Option(min=0, help="price of a GiB of memory for an hour")] = 0.005,
    disk_month: Annotated[float, typer.Option(min=0, help="price of a GiB of disk for a month")] = 0.10,
    gpu_documents: Annotated[
        float, typer.Option(min=0, help="documents that one GPU encodes a second, as you measured it; 0: no GPU")
    ] = 0,
    gpu_hour: Annotated[float, typer.Option(min=0, help="price of a GPU for an hour")] = 2.5,
    coefficients: Annotated[
        Path | None, typer.Option(help="what documents and searches cost on your machines, see docs/capacity.md")
    ] = None,
    speed: Annotated[float, typer.Option(min=0.01, help="of your cores, those of the measurement are 1")] = 1,
    formulas: Annotated[bool, typer.Option(help="show how each figure is found")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Say what machines a number of documents and of searches need, from measured coefficients.

    Formulas, what they were fitted on and how far they were off: docs/capacity.md.
    """
    import json
    from dataclasses import asdict

    from cli.planning.coefficients import SHIPPED, read
    from cli.planning.costs import MODES
    from cli.planning.need import Machine, Need, amount, duration
    from cli.planning.plan import planned
    from services.errors import ConfigurationError

    if mode not in MODES:
        raise ConfigurationError("bad_plan", f"--mode {mode!r} is none of {', '.join(MODES)}.")
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
    typer.echo(f"\nMeasured on {source}. Not in it: Redis (1 GiB is plenty), three managers, backups, rerank.")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.2f}"
