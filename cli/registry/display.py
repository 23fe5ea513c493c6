"""Encoders on a terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.plain import one_line

_COLUMNS = ("name", "fingerprint", "architecture", "vocabulary", "precision", "window", "licence", "size", "where")
_SIZES = ("vocabulary", "size")


def console() -> Console:
    """Lines are not folded for a pipe or a file."""
    plain = Console(highlight=False, markup=False)
    return plain if plain.is_terminal else Console(highlight=False, markup=False, width=10_000)


def size(count: int) -> str:
    """Bytes as kB or MB."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def show_list(rows: Sequence[Mapping[str, Any]], to: Console) -> None:
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
            "size": size(row["bytes"]),
        }
        table.add_row(*(Text(one_line(str(cells[name]))) for name in _COLUMNS))
    to.print(table)
    for row in rows:
        if "error" in row:
            to.print(Text.assemble((f"{one_line(row['name'])}: ", "bold"), one_line(f"{row['error']} [{row['code']}]")))


def show_one(facts: Mapping[str, Any], to: Console) -> None:
    """The manifest in sections, the files and the ends of the query table."""
    manifest = facts["manifest"]
    apart = {"format", "name", "fingerprint", "training", "parity", "files"}
    to.print(Text.assemble((one_line(manifest["name"]), "bold"), f"  {manifest['fingerprint']}"))
    _members({"where": facts["where"], **{k: v for k, v in manifest.items() if k not in apart}}, to, 1)
    for title in ("training", "parity"):
        if title in manifest:
            to.print(Text(title, "bold"))
            _members(manifest[title], to, 1)
    to.print(Text("files", "bold"))
    for name, file in manifest["files"].items():
        missing = "  MISSING" if name in facts["missing_files"] else ""
        to.print(one_line(f"  {name}  {size(file['bytes'])}  sha256 {file['sha256'][:16]}…{missing}"))
    table = facts["query_table"]
    to.print(Text(f"query table: {table['pieces']:,} pieces weigh", "bold"))
    for end in ("heaviest", "lightest"):
        to.print(f"  {end}: {_pieces(table[end])}")


def show_weights(title: str, weights: Sequence[tuple[str, float]], shown: int, to: Console) -> None:
    """The heaviest pieces of a text, and how many more there are."""
    more = f", {len(weights) - shown:,} more" if len(weights) > shown else ""
    to.print(Text(f"{title}: {len(weights):,} weighted pieces", "bold"))
    if weights:
        to.print(f"  {_pieces(weights[:shown])}{more}")


def _members(members: Any, to: Console, depth: int) -> None:
    """Nested members, indented. What a manifest holds beyond our own members may have any shape."""
    space = "  " * depth
    if not isinstance(members, Mapping):
        to.print(space + one_line(str(members)))
        return
    for name, value in members.items():
        flat = isinstance(value, Mapping) and all(not isinstance(part, Mapping) for part in value.values())
        if isinstance(value, Mapping) and not flat:
            to.print(f"{space}{one_line(str(name))}:")
            _members(value, to, depth + 1)
            continue
        parts = ", ".join(f"{key} {part}" for key, part in value.items()) if flat else str(value)
        to.print(one_line(f"{space}{name}: {parts}"))


def _pieces(weights: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{one_line(piece)} {weight:.2f}" for piece, weight in weights)
