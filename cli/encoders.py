"""`sparsewell encoders`: list, show, verify and export encoders."""

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="List, show, verify and export encoders.")

Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command("list")
def list_(
    directories: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIRECTORY]...", help="further model directories, or folders of them"),
    ] = None,
    json: Json = False,
) -> None:
    """List the encoders of the settings, the shipped encoders and those in the given directories.

    Example: sparsewell encoders list /models
    """
    from cli.registry.display import console, show_list
    from cli.registry.facts import namesakes, row
    from services.known_encoders import model_directories, named_encoders
    from services.settings import Settings

    further = [str(found) for directory in directories or [] for found in model_directories(directory)]
    rows = [row(one) for one in named_encoders(Settings.read(), further)]
    if json:
        print(jsonlib.dumps(rows, ensure_ascii=False, indent=2))
        return
    to = console()
    show_list(rows, to)
    for name in namesakes(rows):
        to.print(f"Several encoders have the name {name}: use a fingerprint or path.")


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
    json: Json = False,
) -> None:
    """Show an encoder's manifest and both ends of its query table, or its vectors of a text and a query.

    Example: sparsewell encoders show bootstrap-minilm-l6 --query "revenge at sea"
    """
    from cli.registry.display import console, show_one, show_weights
    from cli.registry.facts import described, document_weights, query_weights
    from services.known_encoders import find_encoder, named_encoders
    from services.query_table import QueryTable
    from services.settings import Settings
    from services.web.answers import utf8

    encoder = find_encoder(named_encoders(Settings.read()), name)
    table = QueryTable.load(encoder.directory)
    answer: dict[str, Any] = {}
    if query is not None:
        answer["query"] = query_weights(table, utf8(query, "A query"))
    if weigh is not None:
        answer["document"], answer["score"] = document_weights(encoder.directory, table, utf8(weigh, "A text"), query)
    answer = answer or described(encoder, table, size)
    if json:
        print(jsonlib.dumps(answer, ensure_ascii=False, indent=2))
        return
    to = console()
    for kind in ("query", "document"):
        if kind in answer:
            show_weights(kind, answer[kind], size, to)
    if answer.get("score") is not None:
        to.print(f"score: {answer['score']:.4f}")
    if "manifest" in answer:
        show_one(answer, to)


@app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="names, fingerprints or paths of encoders, or folders of them"),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="verify all encoders of the settings and all shipped ones")
    ] = False,
    json: Json = False,
) -> None:
    """Check files, fingerprints, query tables and models. Exit status 1: problems, one per line.

    Example: sparsewell encoders verify --all
    """
    from cli.registry.facts import verdicts
    from services.errors import InvalidInput
    from services.settings import Settings

    if bool(names) == every:
        raise InvalidInput("names_or_all", "Give the encoders to verify, or --all.")
    found = verdicts(Settings.read(), names)
    if json:
        print(jsonlib.dumps(found, ensure_ascii=False, indent=2))
    for one in found:
        for problem in one["problems"]:
            print(f"{one['name']}: {problem['detail']} [{problem['code']}]", file=sys.stderr)
        if not one["problems"] and not json:
            print(
                f"{one['name']}: complete; the table weighs {one['coverage']:.1%} of the vocabulary, and of a text of "
                f"{one['words']} words the model weighs {one['own_words']}."
            )
    if any(one["problems"] for one in found):
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
    from cli.registry.export import carry_out

    manifest = carry_out(
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
