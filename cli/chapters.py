"""`sparsewell chapters`: list the chapters of a talk, or write them to a file for players."""

import json as jsonlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.plain import one_line


class Form(StrEnum):
    """Files that players read, and the API's own answer."""

    json = "json"
    podcasting = "podcasting"
    webvtt = "webvtt"
    youtube = "youtube"


def chapters(
    index: Annotated[str, typer.Argument(help="index of the talk")],
    document: Annotated[str, typer.Argument(metavar="ID", help="id of the talk")],
    format: Annotated[  # noqa: A002
        Form | None,
        typer.Option(
            help="Podcasting 2.0 chapters, WebVTT track, lines for YouTube, or JSON of the API; default: a list"
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="file to write; default: standard output")
    ] = None,
    api_url: Annotated[str | None, typer.Option("--api", help="address of the API; default: of the settings")] = None,
) -> None:
    """Show the chapters of a talk.

    Example: sparsewell chapters shows 2024/17 --format webvtt --output 17.vtt
    """
    from cli.api_answers import Door
    from cli.result_files import require_writable
    from services.web.answers import path_part

    if output is not None:
        require_writable(output)
    door, below = Door(api_url, index, "chapters"), f"/{path_part(document, 'The id of the document')}"
    match format:
        case Form.json:
            text = f"{jsonlib.dumps(door.ask('GET', below), ensure_ascii=False, indent=2)}\n"
        case None:
            text = _listed(door.ask("GET", below))
        case _:
            text = door.ask_file(below, {"format": format.value})
    if output is None:
        typer.echo(text, nl=not text.endswith("\n"))
    else:
        output.write_text(text, encoding="utf-8")
        typer.echo(f"Written to {output}.")


def _listed(answer: dict[str, Any]) -> str:
    """Return a line for the talk, for each repair and for each chapter."""
    made, listed = answer.get("chaptering") or {}, answer["chapters"]
    said = [f"{answer.get('title') or answer['id']}: {made.get('engine') or answer['state']}"]
    if error := made.get("error"):
        said.append(f"{error['reason']} [{error['code']}]")
    repairs = (*answer.get("talk_repairs", ()), *made.get("repairs", ()))
    said += [f"{repair['detail']} ({repair['count']:,})" for repair in repairs]
    said += [f"{one['number']:>4}  {clock(one.get('start_time')):>8}  {one['title']}" for one in listed]
    if not listed:
        said.append("No chapters.")
    return "".join(f"{one_line(line)}\n" for line in said)


def clock(seconds: float | None) -> str:
    """Format a time in seconds as H:MM:SS; an unknown time as a dash."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
