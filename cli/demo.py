"""`sparsewell demo` and `sparsewell demo-talk`: start the service, index examples, and search them.

`demo` indexes the documentation of Python's standard library, which every machine has, and `demo-talk` six open talks.
Both print how often each mode answers the questions of `examples`. `cli.demonstration` has the common steps.
"""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.demonstration import index_documents, open_client, print_heading, run_demonstration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from examples.service import ServiceIndex
    from examples.stdlib.results import QuestionRankings
    from examples.talk.results import TalkQuestionRankings
    from services.index_spec import FieldType

TALK_INDEX = "talk"
TALK_FIELDS: "dict[str, FieldType]" = {"show": "keyword", "published": "date"}
PASSAGE_REQUEST: "dict[str, Any]" = {"unit": "passage", "size": 10, "highlight": {"characters": 240}}
STDLIB_INDEX = "stdlib"
SHOWN_RANKS = 3
_UNTIMED = "--:--"


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="keep the service running at the end")] = False,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="port of the API and the search page")] = None,
    json: Annotated[Path | None, typer.Option(help="file for the measured figures, in JSON")] = None,
) -> None:
    """Start the service, index the documentation of Python's standard library, and search it with everyday questions.

    Replaces the index stdlib. Uses running services; at the end, stops only the services that it started.

    Example: sparsewell demo --keep
    """
    run_demonstration(_run_demo, "demo", keep=keep, port=port, json=json)


def demo_talk(
    keep: Annotated[bool, typer.Option("--keep", help="keep the service running at the end")] = False,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="port of the API and the search page")] = None,
    json: Annotated[Path | None, typer.Option(help="file for the measured figures, in JSON")] = None,
) -> None:
    """Start the service, index six open talks with chapters, and search them.

    Replaces the index talk. Uses running services; at the end, stops only the services that it started.

    Example: sparsewell demo-talk --keep
    """
    run_demonstration(_run_talk_demo, "demo-talk", keep=keep, port=port, json=json)


def _run_demo(console: "Console", api_url: str, seconds: dict[str, float]) -> dict[str, Any]:
    """Run the demonstration on the running service, add the seconds of each stage, and return the figures."""
    from examples.service import ServiceIndex
    from examples.stdlib.corpus import DECLARED_FIELDS, read_documents
    from examples.stdlib.results import MODES, RERANKED, ask_questions, make_searcher, read_questions, results_as_json
    from services.encoders.catalogue import list_dense_encoders
    from services.encoders.dense_query_table import DENSE_TABLE_FILE
    from services.settings import Settings

    print_heading(console, "2. Index the documentation of Python's standard library")
    began = time.perf_counter()
    corpus = read_documents()
    seconds["read_corpus"] = time.perf_counter() - began
    kinds = Counter(document["metadata"]["kind"] for document in corpus)
    python = ".".join(str(part) for part in sys.version_info[:3])
    console.print(
        f"{len(corpus):,} documents from Python {python}, read in {seconds['read_corpus']:.1f} s:\n"
        + ", ".join(f"{count:,} {_pluralise(kind)}" for kind, count in kinds.most_common())
        + "."
    )
    with open_client(api_url) as client:
        service = ServiceIndex(client, STDLIB_INDEX)
        encoder = client.get("/readyz").json()["encoder"]
        known = list_dense_encoders(Settings.read()).get(encoder["name"])
        reranked = known is not None and known.directory is not None and (known.directory / DENSE_TABLE_FILE).is_file()
        service.recreate({"fields": DECLARED_FIELDS, "dense": encoder["name"] if reranked else None})
        index_documents(console, service, corpus, seconds)
        print_heading(console, "3. Ask everyday questions")
        began = time.perf_counter()
        modes = (*MODES, RERANKED) if reranked else MODES
        rankings = ask_questions(make_searcher(service), read_questions(), modes)
        seconds["ask"] = time.perf_counter() - began
    show_results(console, rankings)
    show_contrasts(console, rankings)
    rate = round(len(corpus) / seconds["encode"], 1)
    return {
        "encoder": encoder,
        "documents": len(corpus),
        "kinds": dict(sorted(kinds.items())),
        "documents_per_second": rate,
        "answers": results_as_json(rankings),
    }


def show_results(console: "Console", rankings: Sequence["QuestionRankings"]) -> None:
    """Print how many questions each mode answered."""
    from examples.stdlib.results import MAX_RANK, RERANKED, measure_modes

    console.print(
        f"{len(rankings)} questions of a user who does not know Python's names, written before any search was run.\n"
        "Number of questions with a right name among the hits:\n"
    )
    console.print(f"  {'':10}{'first':>12}{f'in first {MAX_RANK}':>16}{'median':>12}{'9 of 10 within':>18}")
    for row in measure_modes(rankings):
        first, within = _format_share(row.first, row.questions), _format_share(row.within, row.questions)
        times = f"{row.median_ms:9.1f} ms{row.p90_ms:15.1f} ms"
        console.print(f"  {row.mode:10}{first:>12}{within:>16}{times}")
    if RERANKED in rankings[0].rankings:
        console.print(
            "\nreranked: hybrid, its best 100 documents scored again by a dense query table. No search runs a model."
        )


def show_contrasts(console: "Console", rankings: Sequence["QuestionRankings"]) -> None:
    """Print the first question of each pattern of answering modes, with the first three names of each mode."""
    from rich.text import Text

    from examples.stdlib.results import find_contrasts, modes_of

    console.print(
        "\nSide by side: one question for each combination of modes that answer within the\n"
        "first five (an asterisk marks the names that answer it)."
    )
    names = modes_of(rankings)
    width = max((min(console.width, 120) - 4) // len(names), 24)
    for pattern, count, item in find_contrasts(rankings):
        modes = [mode for mode, answered in zip(names, pattern, strict=True) if answered]
        head = f"answered by {' and '.join(modes)}" if modes else "answered by no mode"
        console.print(
            Text.assemble(f"\n  {item.question.text}", (f"\n  {head} ({count} of {len(rankings)} questions)", "dim"))
        )
        console.print(Text("  " + "".join(f"{'  ' + mode:{width}}" for mode in names).rstrip(), "dim"))
        for place in range(SHOWN_RANKS):
            console.print(_format_row(item, place, width))
        ranks = [(mode, item.rank(mode) or 0) for mode in names]
        lower = [f"{mode} at {rank}" for mode, rank in ranks if rank > SHOWN_RANKS]
        if lower:
            console.print(Text(f"  Further down: {', '.join(lower)}.", "dim"))


def _format_row(item: "QuestionRankings", place: int, width: int) -> "Text":
    """Return a line with the name at a place, counted from 0, for each mode."""
    from rich.text import Text

    line = Text("  ")
    for ranking in item.rankings.values():
        ids = ranking.ids[place : place + 1]
        right = item.question.rank(list(ids)) is not None
        cell = f"{'*' if right else ' '} {shorten_name(ids[0], width - 4)}" if ids else "  -"
        line.append(f"{cell:{width}}", "green" if right else "")
    line.rstrip()
    return line


def shorten_name(name: str, width: int) -> str:
    """Shorten a dotted name to a width and keep its end. Cut at a dot if possible."""
    if len(name) <= width:
        return name
    tail = name[-(width - 2) :]
    _, dot, rest = tail.partition(".")
    return f"..{rest if dot else tail}"


def _format_share(count: int, total: int) -> str:
    return f"{count} ({count / total:.0%})"


def _pluralise(kind: str) -> str:
    return {"class": "classes", "property": "properties"}.get(kind, f"{kind}s")


def _run_talk_demo(console: "Console", api_url: str, seconds: dict[str, float]) -> dict[str, Any]:
    from examples.service import ServiceIndex
    from examples.stdlib.results import MODES
    from examples.talk.results import TalkQuestionRankings, read_questions, results_as_json

    print_heading(console, "2. Index six talks and make their chapters")
    corpus = read_talks()
    console.print(
        f"{len(corpus)} talks of developers, as WebVTT, SRT, Podcasting 2.0 JSON and plain text; one has chapters,\n"
        "the worker makes those of the others. (In a terminal: sparsewell load FOLDER --kind talk.)"
    )
    with open_client(api_url) as client:
        service = ServiceIndex(client, TALK_INDEX)
        service.recreate({"fields": TALK_FIELDS, "talk": {}})
        index_documents(console, service, corpus, seconds)
        _show_chapters(console, service, [talk["id"] for talk in corpus])
        print_heading(console, "3. Ask what is said")
        began = time.perf_counter()
        rankings = [
            TalkQuestionRankings(
                question, {mode: service.search(question.text, mode, **PASSAGE_REQUEST) for mode in MODES}
            )
            for question in read_questions()
        ]
        seconds["ask"] = time.perf_counter() - began
        encoder = client.get("/readyz").json()["encoder"]
    _show_talk_results(console, rankings)
    show_examples(console, rankings)
    return {"encoder": encoder, "documents": len(corpus), "answers": results_as_json(rankings)}


def read_talks() -> list[dict[str, Any]]:
    """Read the talks as `sparsewell load --kind talk` reads a folder of transcripts."""
    import orjson

    from cli.loading.field_map import DocumentMapper, FieldMap
    from cli.loading.source import SourcePosition
    from cli.loading.text_files import TalkSource
    from examples.talk import TRANSCRIPTS
    from services.errors import InvalidInput

    talks = []
    for row in TalkSource(TRANSCRIPTS).rows(SourcePosition(), DocumentMapper(FieldMap(), TALK_FIELDS, talk=True)):
        if isinstance(row.content, InvalidInput):
            raise row.content
        talks.append(orjson.loads(row.content or b"null"))
    return talks


def _show_chapters(console: "Console", service: "ServiceIndex", talks: Sequence[str]) -> None:
    from rich.text import Text

    for talk in talks:
        answer = service.chapters(talk)
        engine = answer["chaptering"]["engine"]
        origin = "chapters of its producer" if engine == "given" else f"chapters made here ({engine})"
        console.print(Text.assemble("\n  ", (answer["title"], "bold"), (f"  {origin}", "dim")))
        for chapter in answer["chapters"]:
            console.print(Text(f"    {_format_clock(chapter.get('start_time')):>7}  {chapter['title']}"))


def _show_talk_results(console: "Console", rankings: Sequence["TalkQuestionRankings"]) -> None:
    from examples.talk.results import MAX_RANK, measure_modes

    console.print(
        f"{len(rankings)} questions, mostly in other words than the talks, written before any search was run.\n"
        "Number of questions with a passage of the right talk, and with the answer:\n"
    )
    console.print(f"  {'':10}{'right talk':>12}{'the answer':>13}{f'in first {MAX_RANK}':>14}{'median':>12}")
    for row in measure_modes(rankings):
        console.print(
            f"  {row.mode:10}{row.talk:>12}{row.first:>13}{row.within:>14}{row.median_ms:9.1f} ms", markup=False
        )


def show_examples(console: "Console", rankings: Sequence["TalkQuestionRankings"]) -> None:
    """Print the first question of each talk with the best passage of the hybrid search."""
    from rich.text import Text

    from examples.talk.results import first_of_each_talk

    console.print("\nThe first question of each talk with the passage found (an asterisk: it has the answer):")
    for item in first_of_each_talk(rankings):
        console.print(Text(f"\n  {item.question.text}", "bold"))
        for hit in item.hits("hybrid")[:1]:
            passage, chapter = hit["passage"], hit.get("chapter", {})
            right = item.question.answered_by(hit)
            where = f"{_format_clock(passage.get('start_time'))}  {hit['title']} / {chapter.get('title', '')}"
            console.print(Text(f"  {'*' if right else ' '} {where}", "green" if right else ""))
            text = " ".join((hit["highlight"].get("excerpt") or passage)["text"].split())
            speaker = f"{passage['speaker']}: " if "speaker" in passage else ""
            console.print(Text(f"    {speaker}... {text} ...", "dim"))
            if "link" in hit:
                console.print(Text(f"    {hit['link']}", "dim"))


def _format_clock(seconds: float | None) -> str:
    from services.talk.chapters import format_short_clock

    if seconds is None:
        return _UNTIMED
    return format_short_clock(seconds)
