"""Facts of encoders for `sparsewell encoders`, their output on a terminal, and the checks before an export.

A fact is a plain value, so that a terminal and `--json` show the same: rows of a list, a manifest with both ends of the
query table, weighted pieces of a text, problems found by `models.verification`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.terminal import format_size, sanitise_line
from services.encoders.catalogue import (
    KnownEncoder,
    NamedEncoder,
    find_encoder,
    find_model_directories,
    list_named_encoders,
)
from services.encoders.manifest import Manifest, expand_path
from services.encoders.query_table import QueryTable
from services.encoders.vectors import merge_max
from services.errors import ConfigurationError, Conflict, InvalidInput
from services.settings import Settings

_COLUMNS = ("name", "fingerprint", "architecture", "vocabulary", "precision", "window", "licence", "size", "where")
_NUMBERS = ("vocabulary", "size")
WeightedPieces = list[tuple[str, float]]


def encoder_row(named: NamedEncoder) -> dict[str, Any]:
    """Return the row of an encoder in a list. An unusable encoder has `error` and `code` instead of facts."""
    place: dict[str, Any] = {"where": str(named.directory), "origin": named.origin}
    if isinstance(named.encoder, ConfigurationError):
        return place | {"name": named.directory.name, "error": named.encoder.detail, "code": named.encoder.code}
    manifest = named.encoder.manifest
    return place | {
        "name": manifest.name,
        "fingerprint": manifest.fingerprint,
        "architecture": manifest.architecture,
        "vocabulary": manifest.vocabulary,
        "precision": (manifest.model_extra or {}).get("precision"),
        "window": manifest.window.model_dump(),
        "top_k": manifest.top_k,
        "licence": manifest.licence,
        "bytes": sum(file.bytes for file in manifest.files.values()),
    }


def find_duplicate_names(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names that several fingerprints share. An index declared by such a name gets the first encoder."""
    fingerprints: dict[str, set[str]] = {}
    for row in rows:
        if "fingerprint" in row:
            fingerprints.setdefault(row["name"], set()).add(row["fingerprint"])
    return sorted(name for name, distinct in fingerprints.items() if len(distinct) > 1)


def describe_encoder(encoder: KnownEncoder, table: QueryTable, shown: int) -> dict[str, Any]:
    """Return the manifest, its missing files, and the `shown` heaviest and lightest pieces of the query table."""
    manifest, directory = encoder.manifest, encoder.directory
    weighted = table.weighted()
    return {
        "where": str(directory),
        "manifest": manifest.model_dump(),
        "missing_files": [name for name in manifest.files if not (directory / name).is_file()],
        "query_table": {
            "pieces": len(weighted),
            "heaviest": weighted[:shown],
            "lightest": weighted[::-1][:shown],
        },
    }


def weigh_query(table: QueryTable, text: str) -> WeightedPieces:
    """Return the weighted pieces of a query, the heaviest first. Raises InvalidInput (`query_too_long`)."""
    vector = table.encode(text, max_pieces=1000)
    pieces = [(table.piece(i), weight) for i, weight in zip(vector.ids, vector.weights, strict=True)]
    return sorted(pieces, key=lambda pair: -pair[1])


def weigh_document(
    directory: Path, table: QueryTable, text: str, query: str | None
) -> tuple[WeightedPieces, float | None]:
    """Return the indexed vector of a text (maximum over its windows), the heaviest piece first, and the query's score.

    Raises ConfigurationError (`missing_extra`, and the codes of `models.registry.load_encoder`).
    """
    try:
        from models.registry import load_encoder

        encoder = load_encoder(str(directory), threads=1)
    except ModuleNotFoundError as error:
        raise _missing_worker(error) from None
    vector = merge_max(encoder.encode(encoder.windows(text)))
    pieces = zip(vector.ids.tolist(), vector.weights.tolist(), strict=True)
    weights = sorted(((encoder.piece(i), weight) for i, weight in pieces), key=lambda pair: -pair[1])
    return weights, None if query is None else vector.dot(table.encode(query, max_pieces=1000).by_id())


def verify_encoders(settings: Settings, names: Sequence[str] | None) -> list[dict[str, Any]]:
    """Return the problems of each named encoder, in the order of the names; None means all known encoders.

    A name may also be a directory, even of a broken encoder, or a folder of encoders. Raises ConfigurationError
    (`missing_extra`, `ambiguous_encoder`).
    """
    all_named = list_named_encoders(settings)
    if names is None:
        return [_verify_directory(named.directory, named.encoder) for named in all_named]
    reports: list[dict[str, Any]] = []
    for name in names:
        path = expand_path(name)
        try:
            reports.append(_verify_directory(find_encoder(all_named, name).directory))
        except ConfigurationError as error:
            if error.code in {"missing_extra", "ambiguous_encoder"}:
                raise
            if path.is_dir():
                reports += [_verify_directory(directory) for directory in find_model_directories(path)]
            else:
                reports.append(_verify_directory(path, error))
    return reports


def _verify_directory(directory: Path, known: KnownEncoder | ConfigurationError | None = None) -> dict[str, Any]:
    """Return the problems of a directory. A missing directory has one problem, the error `known`."""
    if isinstance(known, ConfigurationError) and not directory.is_dir():
        return {"name": str(directory), "problems": [{"code": known.code, "detail": known.detail}]}
    try:
        from models.verification import verify_directory
    except ModuleNotFoundError as error:
        raise _missing_worker(error) from None
    verdict = verify_directory(directory)
    problems = [{"code": problem.code, "detail": problem.detail} for problem in verdict.problems]
    report: dict[str, Any] = {"name": str(directory), "problems": problems}
    if not problems and verdict.table is not None:
        report |= {"coverage": verdict.table.coverage, "words": verdict.words, "own_words": verdict.own_words}
    return report


def _missing_worker(error: ModuleNotFoundError) -> ConfigurationError:
    return ConfigurationError("missing_extra", f"Encoding needs the package {error.name}: pip install -e '.[worker]'.")


def export_known_encoder(source: str, out: Path, *, replace: bool, **options: Any) -> Manifest:
    """Export an encoder with the options of `models.export.export.ExportOptions`.

    Raises the errors of `export_encoder`, ConfigurationError (`missing_extra`), InvalidInput (`bad_option`) and
    Conflict (`encoder_name_taken`).
    """
    try:
        from models.export.export import ExportOptions, export_encoder
        from models.export.onnx_graph import Precision
        from models.training.recipe import Activation
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "missing_extra", f"Exporting needs the package {error.name}: pip install -e '.[train,worker]'."
        ) from None
    for option, choices in (("precision", Precision), ("activation", Activation)):
        if options[option] not in {None, *get_args(choices)}:
            raise InvalidInput("bad_option", f"--{option} is one of {', '.join(get_args(choices))}.")
    _require_free_name(out)
    return export_encoder(ExportOptions(source, out, replace=replace, **options))


def _require_free_name(out: Path) -> None:
    """Refuse the name of another known encoder: the API would give a new index the first of both."""
    for known in list_named_encoders(Settings.read()):
        if not isinstance(known.encoder, KnownEncoder) or known.encoder.manifest.name != out.resolve().name:
            continue
        if known.encoder.directory.resolve() != out.resolve():
            raise Conflict(
                "encoder_name_taken",
                f"The encoder in {known.encoder.directory} has the name {out.resolve().name!r} already: choose another "
                "directory name.",
            )


def make_console() -> Console:
    """Return a console that does not fold lines for a pipe or a file."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=10_000)


def print_encoder_list(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print a table with a line for each encoder, then a line for each encoder that cannot be used."""
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
            "size": format_size(row["bytes"]),
        }
        table.add_row(*(Text(sanitise_line(str(cells[name]))) for name in _COLUMNS))
    console.print(table)
    for row in rows:
        if "error" in row:
            name, problem = sanitise_line(row["name"]), sanitise_line(f"{row['error']} [{row['code']}]")
            console.print(Text.assemble((f"{name}: ", "bold"), problem))


def print_encoder(facts: Mapping[str, Any], console: Console) -> None:
    """Print the manifest in sections, the files and both ends of the query table."""
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
        console.print(sanitise_line(f"  {name}  {format_size(file['bytes'])}  sha256 {file['sha256'][:16]}…{missing}"))
    table = facts["query_table"]
    console.print(Text(f"query table: {table['pieces']:,} weighted pieces", "bold"))
    for end in ("heaviest", "lightest"):
        console.print(f"  {end}: {_format_pieces(table[end])}")


def print_weights(title: str, weights: Sequence[tuple[str, float]], shown: int, console: Console) -> None:
    """Print the heaviest pieces of a text and the number of the others."""
    more = f", {len(weights) - shown:,} more" if len(weights) > shown else ""
    console.print(Text(f"{title}: {len(weights):,} weighted pieces", "bold"))
    if weights:
        console.print(f"  {_format_pieces(weights[:shown])}{more}")


def _print_members(members: Any, console: Console, depth: int) -> None:
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
