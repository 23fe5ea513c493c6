"""Completes what somebody types, as a search box would."""

import json as jsonlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.plain import one_line

if TYPE_CHECKING:
    from rich.console import Console


def suggest(
    index: Annotated[str, typer.Argument(help="index that is searched")],
    prefix: Annotated[str, typer.Argument(help="what was typed so far; a space at its end ends the word")],
    size: Annotated[int, typer.Option("--size", "-n", help="suggestions at most")] = 8,
    fuzzy: Annotated[bool, typer.Option("--fuzzy/--exact", help="whether a letter may be wrong")] = True,
    filter: Annotated[str | None, typer.Option(help="documents whose titles may be named, in JSON")] = None,  # noqa: A002
    json: Annotated[bool, typer.Option("--json", help="print the answer as the API gave it")] = False,
    api_url: Annotated[str | None, typer.Option("--api", help="address of the API")] = None,
) -> None:
    """Complete what somebody types, by the titles of an index and by frequent queries."""
    from cli.api_answers import Door
    from services.web.answers import utf8

    asked: dict[str, Any] = {"q": utf8(prefix, "PREFIX"), "size": size, "fuzzy": fuzzy}
    if filter is not None:
        asked["filter"] = utf8(filter, "--filter")
    answer = Door(api_url, index, "suggest").ask("GET", parameters=asked)
    if json:
        print(jsonlib.dumps(answer, ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    show(answer, Console(highlight=False))


def show(answer: dict[str, Any], console: "Console") -> None:
    """A suggestion a line, what was typed of it in bold."""
    from rich.text import Text

    if not answer["titles"]:
        console.print(Text("The titles of this index are not completed yet: sparsewell reindex makes it so.", "yellow"))
    for one in answer["suggestions"]:
        line = Text(one_line(one["text"]))
        for part in one["typed"]:
            line.stylize("bold", part["start"], part["end"])
        line.append(f"  {one['id'] or 'often asked'}", "dim")
        console.print(line)
    if not answer["suggestions"]:
        console.print("Nothing completes that.")
