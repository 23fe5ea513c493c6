"""What is told about an encoder, as plain values: the same for a person and for `--json`.

Encoders on a terminal.

An export, with what only the command knows: the settings' encoders, and which packages are there.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.terminal import sanitise_line
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
_SIZES = ("vocabulary", "size")


def make_console() -> Console:
    """Lines are not folded for a pipe or a file."""
    plain = Console(highlight=False, markup=False)
    return plain if plain.is_terminal else Console(highlight=False, markup=False, width=10_000)


def format_size(count: int) -> str:
    """Bytes as kB or MB."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def print_encoder_list(rows: Sequence[Mapping[str, Any]], to: Console) -> None:
    """One line an encoder; those that cannot be used come after the table, one line each."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in _COLUMNS:
        right = name in _SIZES
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
    to.print(table)
    for row in rows:
        if "error" in row:
            to.print(
                Text.assemble(
                    (f"{sanitise_line(row['name'])}: ", "bold"), sanitise_line(f"{row['error']} [{row['code']}]")
                )
            )


def print_encoder(facts: Mapping[str, Any], to: Console) -> None:
    """The manifest in sections, the files and the ends of the query table."""
    manifest = facts["manifest"]
    apart = {"format", "name", "fingerprint", "training", "parity", "files"}
    to.print(Text.assemble((sanitise_line(manifest["name"]), "bold"), f"  {manifest['fingerprint']}"))
    _print_members({"where": facts["where"], **{k: v for k, v in manifest.items() if k not in apart}}, to, 1)
    for title in ("training", "parity"):
        if title in manifest:
            to.print(Text(title, "bold"))
            _print_members(manifest[title], to, 1)
    to.print(Text("files", "bold"))
    for name, file in manifest["files"].items():
        missing = "  MISSING" if name in facts["missing_files"] else ""
        to.print(sanitise_line(f"  {name}  {format_size(file['bytes'])}  sha256 {file['sha256'][:16]}…{missing}"))
    table = facts["query_table"]
    to.print(Text(f"query table: {table['pieces']:,} pieces weigh", "bold"))
    for end in ("heaviest", "lightest"):
        to.print(f"  {end}: {_format_pieces(table[end])}")


def print_weights(title: str, weights: Sequence[tuple[str, float]], shown: int, to: Console) -> None:
    """The heaviest pieces of a text, and how many more there are."""
    more = f", {len(weights) - shown:,} more" if len(weights) > shown else ""
    to.print(Text(f"{title}: {len(weights):,} weighted pieces", "bold"))
    if weights:
        to.print(f"  {_format_pieces(weights[:shown])}{more}")


def _print_members(members: Any, to: Console, depth: int) -> None:
    """Nested members, indented. What a manifest holds beyond our own members may have any shape."""
    space = "  " * depth
    if not isinstance(members, Mapping):
        to.print(space + sanitise_line(str(members)))
        return
    for name, value in members.items():
        flat = isinstance(value, Mapping) and all(not isinstance(part, Mapping) for part in value.values())
        if isinstance(value, Mapping) and not flat:
            to.print(f"{space}{sanitise_line(str(name))}:")
            _print_members(value, to, depth + 1)
            continue
        parts = ", ".join(f"{key} {part}" for key, part in value.items()) if flat else str(value)
        to.print(sanitise_line(f"{space}{name}: {parts}"))


def _format_pieces(weights: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{sanitise_line(piece)} {weight:.2f}" for piece, weight in weights)


def export_known_encoder(source: str, out: Path, *, replace: bool, **options: Any) -> Manifest:
    """What `models.export.export.export_encoder` does, with the options of its Order by name.

    Raises what it raises; ConfigurationError (`missing_extra`), InvalidInput (`bad_option`) and Conflict
    (`encoder_name_taken`).
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
    """Of two encoders of one name the API would give new indexes the first, so no second one is made."""
    for one in list_named_encoders(Settings.read()):
        if not isinstance(one.encoder, KnownEncoder) or one.encoder.manifest.name != out.resolve().name:
            continue
        if one.encoder.directory.resolve() != out.resolve():
            raise Conflict(
                "encoder_name_taken",
                f"The encoder in {one.encoder.directory} is called {out.resolve().name!r} already: choose another "
                "directory name.",
            )


WeightedPieces = list[tuple[str, float]]


def encoder_row(one: NamedEncoder) -> dict[str, Any]:
    """An encoder in a list of them; one that cannot be used has the members `error` and `code` instead."""
    place: dict[str, Any] = {"where": str(one.directory), "origin": one.origin}
    if isinstance(one.encoder, ConfigurationError):
        return place | {"name": one.directory.name, "error": one.encoder.detail, "code": one.encoder.code}
    manifest = one.encoder.manifest
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
    """Names that belong to several fingerprints: of those an index that is declared by name gets the first."""
    fingerprints: dict[str, set[str]] = {}
    for one in rows:
        if "fingerprint" in one:
            fingerprints.setdefault(one["name"], set()).add(one["fingerprint"])
    return sorted(name for name, several in fingerprints.items() if len(several) > 1)


def describe_encoder(encoder: KnownEncoder, table: QueryTable, shown: int) -> dict[str, Any]:
    """The manifest, the state of its files, and the ends of the query table."""
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
    """The weighted pieces of a query, heaviest first. Raises InvalidInput (`query_too_long`)."""
    found = table.encode(text, max_pieces=1000)
    pieces = [(table.piece(i), weight) for i, weight in zip(found.ids, found.weights, strict=True)]
    return sorted(pieces, key=lambda pair: -pair[1])


def weigh_document(
    directory: Path, table: QueryTable, text: str, query: str | None
) -> tuple[WeightedPieces, float | None]:
    """The vector of a text as it is indexed (the maximum over its windows), heaviest first, and the query's score.

    Raises ConfigurationError: what `models.registry.load_encoder` raises, `missing_extra`.
    """
    try:
        from models.registry import load_encoder

        encoder = load_encoder(str(directory), threads=1)
    except ModuleNotFoundError as error:
        raise missing_worker(error) from None
    vector = merge_max(encoder.encode(encoder.windows(text)))
    pieces = zip(vector.ids.tolist(), vector.weights.tolist(), strict=True)
    weights = sorted(((encoder.piece(i), weight) for i, weight in pieces), key=lambda pair: -pair[1])
    return weights, None if query is None else vector.dot(table.encode(query, max_pieces=1000).by_id())


def verify_encoders(settings: Settings, names: Sequence[str] | None) -> list[dict[str, Any]]:
    """What is wrong with each named encoder (None: every one that is known), in the order of the names.

    A directory may be named whatever is in it, so that a broken one can be looked at too; a folder of encoders stands
    for all of them. Raises ConfigurationError (`missing_extra`).
    """
    named = list_named_encoders(settings)
    if names is None:
        return [_verify_one(one.directory, one.encoder) for one in named]
    found: list[dict[str, Any]] = []
    for name in names:
        path = expand_path(name)
        try:
            found.append(_verify_one(find_encoder(named, name).directory))
        except ConfigurationError as error:
            if error.code in {"missing_extra", "ambiguous_encoder"}:
                raise
            found += (
                [_verify_one(one) for one in find_model_directories(path)]
                if path.is_dir()
                else [_verify_one(path, error)]
            )
    return found


def _verify_one(directory: Path, known: KnownEncoder | ConfigurationError | None = None) -> dict[str, Any]:
    """Of a directory; of one that could not be found nothing but the error that said so."""
    if isinstance(known, ConfigurationError) and not directory.is_dir():
        return {"name": str(directory), "problems": [{"code": known.code, "detail": known.detail}]}
    try:
        from models.verification import verify_directory
    except ModuleNotFoundError as error:
        raise missing_worker(error) from None
    verdict = verify_directory(directory)
    problems = [{"code": problem.code, "detail": problem.detail} for problem in verdict.problems]
    found: dict[str, Any] = {"name": str(directory), "problems": problems}
    if not problems and verdict.table is not None:
        found |= {"coverage": verdict.table.coverage, "words": verdict.words, "own_words": verdict.own_words}
    return found


def missing_worker(error: ModuleNotFoundError) -> ConfigurationError:
    return ConfigurationError("missing_extra", f"Encoding needs the package {error.name}: pip install -e '.[worker]'.")
