"""The commands that read an index: `sparsewell search`, `suggest` and `chapters`.

Each sends one request to the API and prints the answer as text or JSON. `chapters` also writes files for players. Other
commands use `read_query_arguments`, which takes queries from arguments and from a file with one query per line.
"""

import json as jsonlib
import textwrap
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal import ApiOption, format_json, sanitise_line
from services.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN_CHARACTERS = 320
_OPTION_HELP = {
    "filter": 'filter of the API, in JSON: \'{"field": "year", "range": {"gte": 1990}}\'',
    "sort": "field to sort by: year, year:asc or year:desc; repeatable",
    "facet": "values to count: genre, genre:25 (the 25 most frequent) or printed:month; repeatable",
}


class ChapterFormat(StrEnum):
    """Formats of chapters: three for players, and the JSON of the API."""

    json = "json"
    podcasting = "podcasting"
    webvtt = "webvtt"
    youtube = "youtube"


def search(  # noqa: PLR0913, PLR0917 (each is an option of the command)
    index: Annotated[
        list[str], typer.Option("--index", "-i", help="index to search; repeat it to search several as one")
    ],
    query: Annotated[str, typer.Argument(help="query; optional with --like, --filter, --sort or --facet")] = "",
    mode: Annotated[str, typer.Option("--mode", "-m", help="sparse, lexical (BM25) or hybrid")] = "hybrid",
    size: Annotated[int, typer.Option("--size", "-n", help="number of hits")] = 10,
    unit: Annotated[str, typer.Option("--unit", help="kind of a hit: document, chapter or passage")] = "document",
    per_document: Annotated[
        int | None, typer.Option("--per-document", help="maximum number of chapters or passages of one document")
    ] = None,
    filter: Annotated[str | None, typer.Option(help=_OPTION_HELP["filter"])] = None,  # noqa: A002 (as in the API)
    sort: Annotated[list[str] | None, typer.Option(help=_OPTION_HELP["sort"])] = None,
    facet: Annotated[list[str] | None, typer.Option(help=_OPTION_HELP["facet"])] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="show the pieces that matched, with their contributions")
    ] = False,
    rerank: Annotated[bool, typer.Option("--rerank", help="rerank the best documents by dense vectors")] = False,
    feedback: Annotated[
        bool, typer.Option("--feedback", help="search again with the pieces of the best documents")
    ] = False,
    like: Annotated[
        list[str] | None, typer.Option("--like", help="id of a document: find more like it; repeatable")
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option("--unlike", help="id of a document: find less like it; repeatable")
    ] = None,
    after: Annotated[
        list[str] | None, typer.Option("--after", help="earlier turn of the conversation, the oldest first; repeatable")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print the answer of the API as JSON")] = False,
    api_url: ApiOption = None,
) -> None:
    """Search one index, or several as one, and show the best passages.

    Example: sparsewell search "revenge at sea" --index books --mode hybrid --size 5
    """
    body: dict[str, Any] = {"query": query, "mode": mode, "size": size, "explain": explain}
    optional = {
        "rerank": {} if rerank else None,
        "feedback": {} if feedback else None,
        "like": like,
        "unlike": unlike,
        "context": {"turns": after} if after else None,
        "unit": unit if unit != "document" else None,
        "per_document": per_document,
    }
    body |= {name: value for name, value in optional.items() if value is not None}
    body |= parse_short_forms(filter, sort or [], facet or [])
    answer = send_search(api_url, index, body)
    if json:
        print(format_json(answer))
        return
    from rich.console import Console

    print_hits(answer, Console(highlight=False))


def suggest(
    index: Annotated[str, typer.Argument(help="index to search")],
    prefix: Annotated[str, typer.Argument(help="typed text; a space at the end completes the last word")],
    size: Annotated[int, typer.Option("--size", "-n", help="maximum number of suggestions")] = 8,
    fuzzy: Annotated[bool, typer.Option("--fuzzy/--exact", help="allow a wrong letter, or do not")] = True,
    filter: Annotated[str | None, typer.Option(help="filter of documents to suggest, in JSON")] = None,  # noqa: A002 (the name of the option)
    json: Annotated[bool, typer.Option("--json", help="print the answer of the API as JSON")] = False,
    api_url: ApiOption = None,
) -> None:
    """Complete a query with titles of an index and with frequent queries.

    Example: sparsewell suggest books "time ma"
    """
    from cli.api_client import IndexResource, require_utf8

    parameters: dict[str, Any] = {"q": require_utf8(prefix, "PREFIX"), "size": size, "fuzzy": fuzzy}
    if filter is not None:
        parameters["filter"] = require_utf8(filter, "--filter")
    answer = IndexResource(api_url, index, "suggest").request("GET", parameters=parameters)
    if json:
        print(format_json(answer))
        return
    from rich.console import Console

    print_suggestions(answer, Console(highlight=False))


def chapters(
    index: Annotated[str, typer.Argument(help="index of the talk")],
    document: Annotated[str, typer.Argument(metavar="ID", help="id of the talk")],
    format: Annotated[  # noqa: A002 (the name of the option)
        ChapterFormat | None,
        typer.Option(
            help="Podcasting 2.0 chapters, WebVTT track, lines for YouTube, or JSON of the API; default: a list"
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="file to write; default: standard output")
    ] = None,
    api_url: ApiOption = None,
) -> None:
    """Show the chapters of a talk.

    Example: sparsewell chapters shows 2024/17 --format webvtt --output 17.vtt
    """
    from cli.api_client import IndexResource, quote_path_segment, require_writable

    if output is not None:
        require_writable(output)
    resource = IndexResource(api_url, index, "chapters")
    path = f"/{quote_path_segment(document, 'The id of the document')}"
    match format:
        case ChapterFormat.json:
            text = f"{format_json(resource.request('GET', path))}\n"
        case None:
            text = _format_chapters(resource.request("GET", path))
        case _:
            text = resource.download(path, {"format": format.value})
    if output is None:
        typer.echo(text, nl=not text.endswith("\n"))
    else:
        output.write_text(text, encoding="utf-8")
        typer.echo(f"Written to {output}.")


def send_search(api_url: str | None, indexes: list[str], body: dict[str, Any]) -> dict[str, Any]:
    """Send a search over one or several indexes. Raises SparsewellError with the code and detail of the API."""
    from cli.api_client import api_address, connect_api, index_path, request_json, require_utf8
    from services.settings import Settings

    base = api_address(Settings.read(), api_url)
    paths = [index_path(index) for index in indexes]
    path = paths[0] if len(paths) == 1 else "/v1"
    body = body if len(paths) == 1 else body | {"indexes": indexes}
    for name in ("query", "mode", "unit"):
        require_utf8(body.get(name, ""), f"The {name}")
    for text in (*body.get("like", ()), *body.get("unlike", ()), *body.get("context", {}).get("turns", ())):
        require_utf8(text, "An id or a turn")
    with connect_api(base, timeout=30) as client:
        return request_json(client, base, "POST", f"{path}/search", json=body)


def parse_short_forms(filter_json: str | None, sort: Sequence[str] = (), facets: Sequence[str] = ()) -> dict[str, Any]:
    """Parse the short forms of --filter, --sort and --facet to members of a search request."""
    if filter_json is None and not sort and not facets:
        return {}
    from cli.api_client import require_utf8
    from query_api.search.validation import read_short

    for text in (*sort, *facets):
        require_utf8(text, "--sort and --facet")
    try:
        return read_short(filter_json, sort, facets)
    except InvalidInput as error:
        raise InvalidInput(error.code, f"--{error.detail}") from None


def read_query_arguments(arguments: Sequence[str] | None, file: Path | None) -> list[str]:
    """Return the queries of the arguments, then of the file. Raises InvalidInput (`no_queries`, `bad_queries_file`)."""
    from cli.api_client import require_utf8

    queries = [
        *(require_utf8(query, "A query") for query in arguments or ()),
        *(_read_query_lines(file) if file is not None else ()),
    ]
    if not queries:
        raise InvalidInput("no_queries", "Give queries, or a file of them with --queries.")
    return queries


def _read_query_lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InvalidInput("bad_queries_file", f"{path} cannot be read: {error}") from None


def print_hits(answer: dict[str, Any], console: "Console") -> None:
    """Print rank, score, title and best passage of each hit, with contributions and facets if requested."""
    from rich.text import Text

    if not answer["hits"]:
        console.print("No hits.")
    if "did_you_mean" in answer:
        console.print(Text(f"Did you mean: {sanitise_line(answer['did_you_mean']['query'])}", "yellow"))
    for rank, hit in enumerate(answer["hits"], 1):
        scores = "  ".join(f"{name} {score:.2f}" for name, score in hit["scores"].items())
        head = Text.assemble((f"{rank:>3}  ", "dim"), (sanitise_line(hit.get("title") or hit["id"]), "bold"))
        if "index" in hit:
            head.append(f"  {hit['index']}", "cyan")
        if hit["score"] is not None:
            head.append(f"  {hit['score']:.3f}  ({scores})", "dim")
        console.print(head)
        if "chapter" in hit or "link" in hit:
            console.print(Text(f"     {_format_location(hit)}", "magenta"))
        if "passage" in hit:
            passage = sanitise_line(" ".join(hit["passage"]["text"].split()))
            shown = textwrap.shorten(passage, _SHOWN_CHARACTERS, placeholder=" …")
            console.print(Text(textwrap.indent(textwrap.fill(shown, 100), "     ")))
        for why in hit.get("why", [])[:8]:
            added = "  (expansion)" if why["expansion"] else ""
            if "query" not in (why.get("origins") or {"query": 0}):
                added += f"  from {', '.join(why['origins'])}"
            piece = f"{why['list']}: {sanitise_line(why['piece'])}"
            console.print(Text(f"     {why['contribution']:8.2f}  {piece}{added}", "cyan"))
    _print_facets(answer, console)
    _print_stages(answer, console)


def _print_stages(answer: dict[str, Any], console: "Console") -> None:
    """Print the documents of the feedback, why reranking was left out, and the times of the stages."""
    from rich.text import Text

    fed_back = answer.get("feedback")
    if fed_back is not None:
        documents = "; ".join(f"{name.replace('_', ' ')}: {', '.join(ids)}" for name, ids in fed_back.items() if ids)
        console.print(Text(f"Feedback: {sanitise_line(documents) or 'nothing'}", "dim"))
    reranked = answer.get("rerank")
    if reranked is not None and not reranked["applied"]:
        console.print(Text(f"Not reranked: {reranked['reason']}", "yellow"))
    elif reranked is not None and reranked["reason"] is not None:
        console.print(Text(f"Reranked by the dense query table: {reranked['reason']}", "yellow"))
    timings = answer["timings_ms"]
    stages = ", ".join(f"{stage} {value:.2f}" for stage, value in timings.items() if stage != "total")
    console.print(Text(f"{timings['total']:.1f} ms ({stages})", "dim"))


def _format_location(hit: dict[str, Any]) -> str:
    """Return the chapter, time, speaker and link of a hit."""
    chapter, passage = hit.get("chapter"), hit.get("passage", {})
    parts = [] if chapter is None else [f"{chapter['number']}. {sanitise_line(chapter['title'])}"]
    if "start_time" in passage:
        parts.append(_format_clock(passage["start_time"]))
    if "speaker" in passage:
        parts.append(sanitise_line(passage["speaker"]))
    return "  ".join([*parts, sanitise_line(hit["link"])] if "link" in hit else parts)


def _format_clock(seconds: float | None) -> str:
    """Format a time in seconds as H:MM:SS; an unknown time as a dash."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _print_facets(answer: dict[str, Any], console: "Console") -> None:
    from rich.text import Text

    if "counted" in answer:
        counted = "that match" if answer["counted"]["among"] == "matches" else "among the candidates"
        console.print(Text(f"{answer['counted']['documents']:,} documents {counted}", "bold"))
    for field, facet in answer.get("facets", {}).items():
        buckets = [(_bucket_name(bucket), bucket["count"]) for bucket in facet["buckets"]]
        if facet["other"]:
            buckets.append(("…", facet["other"]))
        counts = ", ".join(f"{name} {count:,}" for name, count in buckets)
        console.print(Text.assemble((f"     {field}: ", "cyan"), sanitise_line(counts) or "none"))


def _bucket_name(bucket: dict[str, Any]) -> str:
    if "range" in bucket:
        return " ".join(f"{name} {bound}" for name, bound in bucket["range"].items())
    value = bucket["value"]
    return value if isinstance(value, str) and value else jsonlib.dumps(value)


def print_suggestions(answer: dict[str, Any], console: "Console") -> None:
    """Print one suggestion per line, with the typed parts in bold."""
    from rich.text import Text

    if not answer["titles"]:
        console.print(Text("This index does not suggest titles yet: run sparsewell reindex.", "yellow"))
    for suggestion in answer["suggestions"]:
        line, text, end = Text(), suggestion["text"], 0
        for span in suggestion["typed"]:
            line.append(sanitise_line(text[end : span["start"]]))
            line.append(sanitise_line(text[span["start"] : span["end"]]), "bold")
            end = span["end"]
        line.append(sanitise_line(text[end:]))
        line.append(f"  {sanitise_line(suggestion['id'] or 'often asked')}", "dim")
        console.print(line)
    if not answer["suggestions"]:
        console.print("No suggestions.")


def _format_chapters(answer: dict[str, Any]) -> str:
    """Return a line for the talk, for each repair and for each chapter."""
    chaptering, rows = answer.get("chaptering") or {}, answer["chapters"]
    lines = [f"{answer.get('title') or answer['id']}: {chaptering.get('engine') or answer['state']}"]
    if error := chaptering.get("error"):
        lines.append(f"{error['reason']} [{error['code']}]")
    repairs = (*answer.get("talk_repairs", ()), *chaptering.get("repairs", ()))
    lines += [f"{repair['detail']} ({repair['count']:,})" for repair in repairs]
    for chapter in rows:
        lines.append(f"{chapter['number']:>4}  {_format_clock(chapter.get('start_time')):>8}  {chapter['title']}")
    if not rows:
        lines.append("No chapters.")
    return "".join(f"{sanitise_line(line)}\n" for line in lines)
