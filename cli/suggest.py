"""`sparsewell suggest`: complete a query as a search box does."""

import json as jsonlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.plain import one_line

if TYPE_CHECKING:
    from rich.console import Console


def suggest(
    index: Annotated[str, typer.Argument(help="index to search")],
    prefix: Annotated[str, typer.Argument(help="typed text; a space at the end completes the last word")],
    size: Annotated[int, typer.Option("--size", "-n", help="maximum number of suggestions")] = 8,
    fuzzy: Annotated[bool, typer.Option("--fuzzy/--exact", help="allow a wrong letter, or do not")] = True,
    filter: Annotated[str | None, typer.Option(help="filter of documents to suggest, in JSON")] = None,  # noqa: A002
    json: Annotated[bool, typer.Option("--json", help="print the answer of the API as JSON")] = False,
    api_url: Annotated[str | None, typer.Option("--api", help="address of the API; default: of the settings")] = None,
) -> None:
    """Complete a query with titles of an index and with frequent queries.

    Example: sparsewell suggest books "time ma"
    """
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
    """Print one suggestion per line, with the typed parts in bold."""
    from rich.text import Text

    if not answer["titles"]:
        console.print(Text("This index does not suggest titles yet: run sparsewell reindex.", "yellow"))
    for one in answer["suggestions"]:
        line = Text(one_line(one["text"]))
        for part in one["typed"]:
            line.stylize("bold", part["start"], part["end"])
        line.append(f"  {one['id'] or 'often asked'}", "dim")
        console.print(line)
    if not answer["suggestions"]:
        console.print("No suggestions.")
