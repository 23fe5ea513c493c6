"""`sparsewell chapters`: list the chapters of a talk, or write them to a file for players."""

import json as jsonlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cli.plain import one_line

if TYPE_CHECKING:
    from query_api.talk_form import ChaptersAnswer
    from sparsewell.client.operations import ChapterFile


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
    from cli.api_answers import api_address
    from cli.result_files import require_writable
    from services.settings import Settings
    from sparsewell.client import Client

    if output is not None:
        require_writable(output)
    with Client(api_address(Settings.read(), api_url)) as client:
        match format:
            case Form.json:
                answer = client.get_chapters(index, document).model_dump(exclude_none=True)
                text = f"{jsonlib.dumps(answer, ensure_ascii=False, indent=2)}\n"
            case None:
                text = _listed(client.get_chapters(index, document))
            case _:
                text = client.export_chapters(index, document, cast("ChapterFile", format.value))
    if output is None:
        typer.echo(text, nl=not text.endswith("\n"))
    else:
        output.write_text(text, encoding="utf-8")
        typer.echo(f"Written to {output}.")


def _listed(answer: "ChaptersAnswer") -> str:
    """Return one line per chapter, after lines about the engine and repairs."""
    made = answer.chaptering
    said = [f"{answer.title or answer.id}: {made.engine if made else answer.state}"]
    if made and made.error:
        said.append(f"{made.error['reason']} [{made.error['code']}]")
    repairs = (*answer.talk_repairs, *(made.repairs if made else ()))
    said += [f"{repair.detail} ({repair.count:,})" for repair in repairs]
    said += [f"{one.number:>4}  {clock(one.start_time):>8}  {one.title}" for one in answer.chapters]
    if not answer.chapters:
        said.append("No chapters.")
    return "".join(f"{one_line(line)}\n" for line in said)


def clock(seconds: float | None) -> str:
    """Format a time in seconds as H:MM:SS; an unknown time as a dash."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
