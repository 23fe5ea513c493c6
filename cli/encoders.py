"""`sparsewell encoders`: which encoders there are, what is known of each, whether they are whole, and new ones."""

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
        list[Path] | None, typer.Argument(metavar="[DIRECTORY]...", help="more model directories, or folders of them")
    ] = None,
    json: Json = False,
) -> None:
    """List the encoders of the settings, the shipped ones and those in the given directories."""
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
        to.print(f"Several encoders are called {name}: name them by fingerprint or path.")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="name, fingerprint or path of an encoder")],
    weigh: Annotated[str | None, typer.Option(metavar="TEXT", help="the heaviest pieces of this text's vector")] = None,
    query: Annotated[str | None, typer.Option(metavar="TEXT", help="the weighted pieces of this query")] = None,
    size: Annotated[int, typer.Option("--size", "-n", min=1, help="pieces shown of a text or of a table's end")] = 12,
    json: Json = False,
) -> None:
    """Show an encoder's manifest and the ends of its query table, or what it makes of a text and of a query."""
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
        list[str] | None, typer.Argument(metavar="[NAME]...", help="names, fingerprints or paths; folders of encoders")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="every encoder of the settings and every shipped one")] = False,
    json: Json = False,
) -> None:
    """Check files, fingerprints, query tables and models; exit status 1 and a line for each problem."""
    from cli.registry.facts import verdicts
    from services.errors import InvalidInput
    from services.settings import Settings

    if bool(names) == every:
        raise InvalidInput("names_or_all", "Name the encoders to verify, or say --all.")
    found = verdicts(Settings.read(), names)
    if json:
        print(jsonlib.dumps(found, ensure_ascii=False, indent=2))
    for one in found:
        for problem in one["problems"]:
            print(f"{one['name']}: {problem['detail']} [{problem['code']}]", file=sys.stderr)
        if not one["problems"] and not json:
            print(
                f"{one['name']}: whole; the table weighs {one['coverage']:.1%} of the vocabulary, and of a text of "
                f"{one['words']} words the model weighs {one['own_words']}."
            )
    if any(one["problems"] for one in found):
        raise typer.Exit(1)


@app.command()
def export(  # noqa: PLR0913, PLR0917 (each is an option of the command)
    source: Annotated[
        str, typer.Argument(help="checkpoint, directory of a published encoder, or owner/name[@revision]")
    ],
    out: Annotated[Path, typer.Argument(help="model directory to write; its name becomes the encoder's")],
    precision: Annotated[
        str, typer.Option(help="int8, int7 (for processors without VNNI), fp16 (for a GPU) or fp32")
    ] = "int8",
    window: Annotated[int | None, typer.Option(help="pieces of a window; none: 382, or what the model takes")] = None,
    overlap: Annotated[int | None, typer.Option(help="pieces that neighbours share; none: an eighth")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="heaviest pieces of a window that are kept")] = 256,
    record: Annotated[Path | None, typer.Option(help="JSON with licence, training and more for the manifest")] = None,
    parity: Annotated[list[Path] | None, typer.Option(help="collection to compare with PyTorch on; repeatable")] = None,
    report: Annotated[Path | None, typer.Option(help="the parity report: written, or read without --parity")] = None,
    activation: Annotated[str | None, typer.Option(help="of a published encoder whose files name none")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="an encoder that is there already")] = False,
) -> None:
    """Make a model directory from a checkpoint or from an encoder as it is published."""
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
