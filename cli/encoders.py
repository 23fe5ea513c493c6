"""`sparsewell encoders`: list, show, verify and export encoders.

`list` reads manifests and `show` also query tables. `verify` and `show --weigh` load the model (the worker extra), and
`export` needs PyTorch (the train extra). See `cli.encoder_registry` for the output of each.
"""

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="List, show, verify and export encoders.")

JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command("list")
def list_(
    directories: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIRECTORY]...", help="further model directories, or folders of them"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the encoders of the settings, the shipped encoders and those in the given directories.

    Example: sparsewell encoders list /models
    """
    from cli.encoder_registry import encoder_row, find_duplicate_names, make_console, print_encoder_list
    from services.encoders.catalogue import find_model_directories, list_named_encoders
    from services.settings import Settings

    further = [str(model) for directory in directories or [] for model in find_model_directories(directory)]
    rows = [encoder_row(encoder) for encoder in list_named_encoders(Settings.read(), further)]
    if json:
        print(jsonlib.dumps(rows, ensure_ascii=False, indent=2))
        return
    console = make_console()
    print_encoder_list(rows, console)
    for name in find_duplicate_names(rows):
        console.print(f"Several encoders have the name {name}: use a fingerprint or path.")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="name, fingerprint or path of an encoder")],
    weigh: Annotated[
        str | None, typer.Option(metavar="TEXT", help="text to encode: show the heaviest pieces of its vector")
    ] = None,
    query: Annotated[
        str | None, typer.Option(metavar="TEXT", help="query to weigh: show its pieces with their weights")
    ] = None,
    size: Annotated[int, typer.Option("--size", "-n", min=1, help="number of pieces to show")] = 12,
    json: JsonOption = False,
) -> None:
    """Show an encoder's manifest and both ends of its query table, or its vectors of a text and a query.

    Example: sparsewell encoders show bootstrap-minilm-l6 --query "revenge at sea"
    """
    from cli.api_client import require_utf8
    from cli.encoder_registry import (
        describe_encoder,
        make_console,
        print_encoder,
        print_weights,
        weigh_document,
        weigh_query,
    )
    from services.encoders.catalogue import find_encoder, list_named_encoders
    from services.encoders.query_table import QueryTable
    from services.settings import Settings

    encoder = find_encoder(list_named_encoders(Settings.read()), name)
    table = QueryTable.load(encoder.directory)
    answer: dict[str, Any] = {}
    if query is not None:
        answer["query"] = weigh_query(table, require_utf8(query, "A query"))
    if weigh is not None:
        answer["document"], answer["score"] = weigh_document(
            encoder.directory, table, require_utf8(weigh, "A text"), query
        )
    answer = answer or describe_encoder(encoder, table, size)
    if json:
        print(jsonlib.dumps(answer, ensure_ascii=False, indent=2))
        return
    console = make_console()
    for kind in ("query", "document"):
        if kind in answer:
            print_weights(kind, answer[kind], size, console)
    if answer.get("score") is not None:
        console.print(f"score: {answer['score']:.4f}")
    if "manifest" in answer:
        print_encoder(answer, console)


@app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="names, fingerprints or paths of encoders, or folders of them"),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="verify all encoders of the settings and all shipped ones")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Check files, fingerprints, query tables and models. Exit status 1: problems, one per line.

    Example: sparsewell encoders verify --all
    """
    from cli.encoder_registry import verify_encoders
    from services.errors import InvalidInput
    from services.settings import Settings

    if bool(names) == every:
        raise InvalidInput("names_or_all", "Give the encoders to verify, or --all.")
    reports = verify_encoders(Settings.read(), names)
    if json:
        print(jsonlib.dumps(reports, ensure_ascii=False, indent=2))
    for report in reports:
        for problem in report["problems"]:
            print(f"{report['name']}: {problem['detail']} [{problem['code']}]", file=sys.stderr)
        if not report["problems"] and not json:
            print(
                f"{report['name']}: complete; the query table weighs {report['coverage']:.1%} of the vocabulary, and "
                f"the model weighs {report['own_words']} of the {report['words']} words of a sample text."
            )
    if any(report["problems"] for report in reports):
        raise typer.Exit(1)


@app.command()
def export(  # noqa: PLR0913, PLR0917 (each is an option of the command)
    source: Annotated[str, typer.Argument(help="checkpoint, directory of a published encoder, or owner/name@revision")],
    out: Annotated[Path, typer.Argument(help="model directory to write; its name becomes the name of the encoder")],
    precision: Annotated[str, typer.Option(help="int8, int7 (processors without VNNI), fp16 (GPUs) or fp32")] = "int8",
    window: Annotated[
        int | None, typer.Option(help="pieces per window; default: 382, or the maximum of the model")
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(help="pieces that neighbouring windows share; default: an eighth")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="number of heaviest pieces of a window to keep")] = 256,
    record: Annotated[
        Path | None, typer.Option(help="JSON file with licence, training and more for the manifest")
    ] = None,
    parity: Annotated[
        list[Path] | None, typer.Option(help="collection to compare the export with PyTorch on; repeatable")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="file of the parity report: written with --parity, read without")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="activation of a published encoder whose files name none")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="replace an existing encoder")] = False,
) -> None:
    """Make a model directory from a checkpoint or a published encoder.

    Example: sparsewell encoders export checkpoint models/weights/my-encoder --parity scifact
    """
    from cli.encoder_registry import export_known_encoder

    manifest = export_known_encoder(
        source,
        out,
        replace=replace,
        precision=precision,
        window=window,
        overlap=overlap,
        top_k=top_k,
        record=record,
        parity=tuple(parity or ()),
        report=report,
        activation=activation,
    )
    print(f"{out}: {manifest.name} ({manifest.fingerprint}); look at it with `sparsewell encoders show {out}`.")
