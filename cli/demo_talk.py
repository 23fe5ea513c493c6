"""`sparsewell demo-talk`: index six talks, show their chapters, and search them."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.demonstration import client_of, demonstrate, heading, index_documents

if TYPE_CHECKING:
    from rich.console import Console

    from examples.service import Service
    from examples.talk.tally import Asked
    from services.index_spec import FieldType

INDEX = "talk"
FIELDS: "dict[str, FieldType]" = {"show": "keyword", "published": "date"}
PASSAGES: "dict[str, Any]" = {"unit": "passage", "size": 10, "highlight": {"characters": 240}}
_UNTIMED = "--:--"


def demo_talk(
    keep: Annotated[bool, typer.Option("--keep", help="keep the service running at the end")] = False,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="port of the API and the search page")] = None,
    json: Annotated[Path | None, typer.Option(help="file for the measured figures, in JSON")] = None,
) -> None:
    """Start the service, index six open talks with chapters, and search them.

    Replaces the index talk. Uses services that run already, and stops at the end only those that it started.

    Example: sparsewell demo-talk --keep
    """
    demonstrate(_show, "demo-talk", keep=keep, port=port, json=json)


def _show(console: "Console", api_url: str, seconds: dict[str, float]) -> dict[str, Any]:
    from examples.service import Service
    from examples.stdlib.tally import MODES
    from examples.talk.questions import questions
    from examples.talk.tally import Asked, as_json

    heading(console, "2. Index six talks and make their chapters")
    corpus = documents()
    console.print(
        f"{len(corpus)} talks of developers, as WebVTT, SRT, Podcasting 2.0 JSON and plain text; one has chapters,\n"
        "the worker makes those of the others. (In a terminal: sparsewell load FOLDER --kind talk.)"
    )
    with client_of(api_url) as client:
        service = Service(client, INDEX)
        service.recreate({"fields": FIELDS, "talk": {}})
        index_documents(console, service, corpus, seconds)
        _show_chapters(console, service, [one["id"] for one in corpus])
        heading(console, "3. Ask what is said")
        began = time.perf_counter()
        asked = [
            Asked(one, {mode: service.search(one.text, mode, **PASSAGES) for mode in MODES}) for one in questions()
        ]
        seconds["ask"] = time.perf_counter() - began
        encoder = client.get("/readyz").json()["encoder"]
    _show_tally(console, asked)
    show_examples(console, asked)
    return {"encoder": encoder, "documents": len(corpus), "answers": as_json(asked)}


def documents() -> list[dict[str, Any]]:
    """Read the talks as `sparsewell load --kind talk` reads a folder of transcripts."""
    import orjson

    from cli.loading.field_map import FieldMap, Mapper
    from cli.loading.source import Place
    from cli.loading.talk_files import TalkFiles
    from examples.talk import TRANSCRIPTS
    from services.errors import InvalidInput

    found = []
    for row in TalkFiles(TRANSCRIPTS).rows(Place(), Mapper(FieldMap(), FIELDS, talk=True)):
        if isinstance(row.content, InvalidInput):
            raise row.content
        found.append(orjson.loads(row.content or b"null"))
    return found


def _show_chapters(console: "Console", service: "Service", talks: Sequence[str]) -> None:
    from rich.text import Text

    for talk in talks:
        answer = service.chapters(talk)
        made = answer["chaptering"]
        by = "its producer's" if made["engine"] == "given" else f"made here ({made['engine']})"
        console.print(Text.assemble("\n  ", (answer["title"], "bold"), (f"  {by}", "dim")))
        for chapter in answer["chapters"]:
            console.print(Text(f"    {_clock(chapter.get('start_time')):>7}  {chapter['title']}"))


def _show_tally(console: "Console", asked: Sequence["Asked"]) -> None:
    from examples.talk.tally import WITHIN, tally

    console.print(
        f"{len(asked)} questions, mostly in other words than the talks, written before any search was run.\n"
        "Number of questions with a passage of the right talk, and with the answer:\n"
    )
    console.print(f"  {'':10}{'right talk':>12}{'the answer':>13}{f'in first {WITHIN}':>14}{'median':>12}")
    for row in tally(asked):
        console.print(
            f"  {row.mode:10}{row.talk:>12}{row.first:>13}{row.within:>14}{row.median_ms:9.1f} ms", markup=False
        )


def show_examples(console: "Console", asked: Sequence["Asked"]) -> None:
    """Print the first question of each talk with the best passage of the hybrid search."""
    from rich.text import Text

    from examples.talk.tally import first_of_each_talk

    console.print("\nThe first question of each talk with the passage found (an asterisk: it has the answer):")
    for one in first_of_each_talk(asked):
        console.print(Text(f"\n  {one.question.text}", "bold"))
        for hit in one.hits("hybrid")[:1]:
            passage, chapter = hit["passage"], hit.get("chapter", {})
            right = one.question.answered_by(hit)
            where = f"{_clock(passage.get('start_time'))}  {hit['title']} / {chapter.get('title', '')}"
            console.print(Text(f"  {'*' if right else ' '} {where}", "green" if right else ""))
            said = " ".join((hit["highlight"].get("excerpt") or passage)["text"].split())
            who = f"{passage['speaker']}: " if "speaker" in passage else ""
            console.print(Text(f"    {who}... {said} ...", "dim"))
            if "link" in hit:
                console.print(Text(f"    {hit['link']}", "dim"))


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return _UNTIMED
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
