"""`sparsewell encoders`: list, show, verify and export encoders, and count their reference corpora.

`list` reads manifests and `show` also query tables. `verify` and `show --weigh` load the model (the worker extra), and
`export` needs PyTorch (the train extra).
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from cli.terminal import format_json, sanitise_line

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(no_args_is_help=True, help="List, show, verify and export encoders.")

_COLUMNS = ("name", "fingerprint", "architecture", "vocabulary", "precision", "window", "licence", "size", "where")
_NUMBERS = ("vocabulary", "size")
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
    from cli.encoder_inspection import encoder_row, find_duplicate_names
    from services.encoders.catalogue import find_model_directories, list_named_encoders
    from services.settings import Settings

    further = [str(model) for directory in directories or [] for model in find_model_directories(directory)]
    rows = [encoder_row(encoder) for encoder in list_named_encoders(Settings.read(), further)]
    if json:
        print(format_json(rows))
        return
    console = _make_console()
    _print_encoder_list(rows, console)
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
    field: Annotated[
        str | None,
        typer.Option(help="print OpenSearch's search of this field for --query; its features are pieces"),
    ] = None,
    size: Annotated[int, typer.Option("--size", "-n", min=1, help="number of pieces to show, or of hits")] = 12,
    json: JsonOption = False,
) -> None:
    """Show an encoder's manifest and both ends of its query table, or its vectors of a text and a query.

    Example: sparsewell encoders show projected-minilm-l6 --query "revenge at sea"
    """
    from cli.api_client import require_utf8
    from cli.encoder_inspection import build_piece_search, describe_encoder, weigh_document, weigh_query
    from services.encoders.catalogue import find_encoder, list_named_encoders
    from services.encoders.query_table import QueryTable
    from services.settings import Settings

    encoder = find_encoder(list_named_encoders(Settings.read()), name)
    table = QueryTable.load(encoder.directory)
    if field is not None:
        body, unnamed = build_piece_search(table, query, field, size)
        if unnamed:
            print(f"Left out, since no clause can name a piece with a dot: {' '.join(unnamed)}", file=sys.stderr)
        print(format_json(body))
        return
    answer: dict[str, Any] = {}
    if query is not None:
        answer["query"] = weigh_query(table, require_utf8(query, "A query"))
    if weigh is not None:
        answer["document"], answer["score"] = weigh_document(
            encoder.directory, table, require_utf8(weigh, "A text"), query
        )
    answer = answer or describe_encoder(encoder, table, size)
    if json:
        print(format_json(answer))
        return
    console = _make_console()
    for kind in ("query", "document"):
        if kind in answer:
            _print_weights(kind, answer[kind], size, console)
    if answer.get("score") is not None:
        console.print(f"score: {answer['score']:.4f}")
    if "manifest" in answer:
        _print_encoder(answer, console)


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
    from cli.encoder_inspection import verify_encoders
    from services.errors import InvalidInput
    from services.settings import Settings

    if bool(names) == every:
        raise InvalidInput("names_or_all", "Give the encoders to verify, or --all.")
    reports = verify_encoders(Settings.read(), names)
    if json:
        print(format_json(reports))
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
    from services.errors import ConfigurationError, InvalidInput

    try:
        from models.export.export import ExportOptions, export_encoder
        from models.export.transformer_graph import Precision
        from models.training.recipe import Activation
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "missing_extra", f"Exporting needs the package {error.name}: pip install -e '.[train,worker]'."
        ) from None
    for option, value, choices in (
        ("precision", precision, get_args(Precision)),
        ("activation", activation, (None, *get_args(Activation))),
    ):
        if value not in choices:
            raise InvalidInput("bad_option", f"--{option} is one of {', '.join(filter(None, choices))}.")
    _require_free_name(out)
    manifest = export_encoder(
        ExportOptions(
            source,
            out,
            replace=replace,
            precision=cast("Precision", precision),
            window=window,
            overlap=overlap,
            top_k=top_k,
            record=record,
            parity=tuple(parity or ()),
            report=report,
            activation=cast("Activation | None", activation),
        )
    )
    print(f"{out}: {manifest.name} ({manifest.fingerprint}); look at it with `sparsewell encoders show {out}`.")


@app.command()
def publish(
    source: Annotated[Path, typer.Argument(help="checkpoint of a training (OUT/best), or a model directory")],
    out: Annotated[Path, typer.Argument(help="directory to write")],
    licence: Annotated[
        str | None, typer.Option(help="licence of the model card; default: that of the manifest")
    ] = None,
) -> None:
    """Write an encoder for sentence-transformers and for OpenSearch's plugin, with a model card.

    Example: sparsewell encoders publish run/best my-encoder --licence Apache-2.0
    """
    from services.errors import ConfigurationError

    try:
        from models.training.pipeline import publish_encoder

        publish_encoder(source, out, licence=licence)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "missing_extra", f"Publishing needs the package {error.name}: pip install -e '.[train,worker]'."
        ) from None
    print(f"{out}: SparseEncoder({str(out)!r}) of sentence-transformers loads it.")


@app.command()
def reference(
    directory: Annotated[Path, typer.Argument(help="model directory of the encoder")],
    pairs: Annotated[list[Path], typer.Argument(help="files of pairs (.jsonl, also compressed); passages are counted")],
    most: Annotated[int, typer.Option(min=1000, help="largest number of passages")] = 40_000,
) -> None:
    """Count the pieces of a reference corpus, so that indexes can adapt the encoder's query weights.

    Example: sparsewell encoders reference my-encoder wikipedia.jsonl.gz arxiv.jsonl.gz
    """
    from models.export.package import count_reference, sample_passages, write_reference
    from services.encoders.query_table import QueryTable

    frequencies, by_file = count_reference(QueryTable.load(directory).ids, sample_passages(pairs, most))
    write_reference(directory, frequencies, by_file)
    print(f"{directory}: {len(frequencies.ids):,} pieces in {frequencies.documents:,} passages.")


@app.command()
def calibrate(
    directory: Annotated[Path, typer.Argument(help="model directory of the encoder")],
    pairs: Annotated[list[Path], typer.Argument(help="files of pairs (.jsonl, also compressed); passages are encoded")],
    most: Annotated[int, typer.Option(min=50, help="largest number of passages")] = 1000,
) -> None:
    """Measure the scale of `min_score`: how well a text matches its own first words.

    Example: sparsewell encoders calibrate my-encoder wikipedia.jsonl.gz
    """
    from models.export.package import measure_full_match, sample_passages, write_full_match
    from models.registry import load_encoder
    from services.encoders.query_table import QueryTable
    from services.settings import Settings

    prune = Settings.model_fields["prune"].default
    encoder, table = load_encoder(str(directory.resolve())), QueryTable.load(directory)
    full_match, by_file = measure_full_match(encoder, table, sample_passages(pairs, most), prune)
    write_full_match(directory, full_match, by_file)
    print(f"{directory}: a full match is {full_match:g}, the median of {sum(by_file.values()):,} passages.")


def _require_free_name(out: Path) -> None:
    """Refuse the name of another known encoder: the API would give a new index the first of both."""
    from services.encoders.catalogue import KnownEncoder, list_named_encoders
    from services.errors import Conflict
    from services.settings import Settings

    for known in list_named_encoders(Settings.read()):
        if not isinstance(known.encoder, KnownEncoder) or known.encoder.manifest.name != out.resolve().name:
            continue
        if known.encoder.directory.resolve() != out.resolve():
            raise Conflict(
                "encoder_name_taken",
                f"The encoder in {known.encoder.directory} has the name {out.resolve().name!r} already: choose another "
                "directory name.",
            )


def _make_console() -> "Console":
    """Return a console that does not fold lines for a pipe or a file."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=10_000)


def _print_encoder_list(rows: Sequence[Mapping[str, Any]], console: "Console") -> None:
    """Print a table with a line for each encoder, then a line for each encoder that cannot be used."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in _COLUMNS:
        right = name in _NUMBERS
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "where", overflow="fold")
    for row in rows:
        if "error" in row:
            continue
        cells = {
            **row,
            "vocabulary": f"{row['vocabulary']:,}",
            "precision": row["precision"] or "",
            "window": f"{row['window']['pieces']}, overlap {row['window']['overlap']}",
            "size": _format_size(row["bytes"]),
        }
        table.add_row(*(Text(sanitise_line(str(cells[name]))) for name in _COLUMNS))
    console.print(table)
    for row in rows:
        if "error" in row:
            name, problem = sanitise_line(row["name"]), sanitise_line(f"{row['error']} [{row['code']}]")
            console.print(Text.assemble((f"{name}: ", "bold"), problem))


def _print_encoder(facts: Mapping[str, Any], console: "Console") -> None:
    """Print the manifest in sections, the files and both ends of the query table."""
    from rich.text import Text

    manifest = facts["manifest"]
    sections = {"format", "name", "fingerprint", "training", "parity", "files"}
    console.print(Text.assemble((sanitise_line(manifest["name"]), "bold"), f"  {manifest['fingerprint']}"))
    _print_members({"where": facts["where"], **{k: v for k, v in manifest.items() if k not in sections}}, console, 1)
    for title in ("training", "parity"):
        if title in manifest:
            console.print(Text(title, "bold"))
            _print_members(manifest[title], console, 1)
    console.print(Text("files", "bold"))
    for name, file in manifest["files"].items():
        missing = "  MISSING" if name in facts["missing_files"] else ""
        console.print(sanitise_line(f"  {name}  {_format_size(file['bytes'])}  sha256 {file['sha256'][:16]}…{missing}"))
    table = facts["query_table"]
    console.print(Text(f"query table: {table['pieces']:,} weighted pieces", "bold"))
    for end in ("heaviest", "lightest"):
        console.print(f"  {end}: {_format_pieces(table[end])}")


def _print_weights(title: str, weights: Sequence[tuple[str, float]], shown: int, console: "Console") -> None:
    """Print the heaviest pieces of a text and the number of the others."""
    from rich.text import Text

    more = f", {len(weights) - shown:,} more" if len(weights) > shown else ""
    console.print(Text(f"{title}: {len(weights):,} weighted pieces", "bold"))
    if weights:
        console.print(f"  {_format_pieces(weights[:shown])}{more}")


def _print_members(members: Any, console: "Console", depth: int) -> None:
    """Print nested members, indented. Members that another tool added to a manifest may have any shape."""
    indent = "  " * depth
    if not isinstance(members, Mapping):
        console.print(indent + sanitise_line(str(members)))
        return
    for name, value in members.items():
        flat = isinstance(value, Mapping) and all(not isinstance(member, Mapping) for member in value.values())
        if isinstance(value, Mapping) and not flat:
            console.print(f"{indent}{sanitise_line(str(name))}:")
            _print_members(value, console, depth + 1)
            continue
        text = ", ".join(f"{key} {member}" for key, member in value.items()) if flat else str(value)
        console.print(sanitise_line(f"{indent}{name}: {text}"))


def _format_pieces(weights: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{sanitise_line(piece)} {weight:.2f}" for piece, weight in weights)


def _format_size(count: int) -> str:
    """Format a number of bytes as kB or MB."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
