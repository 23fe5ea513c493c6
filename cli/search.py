"""`sparsewell search`: send a search to the API and print the hits, or the answer as JSON."""

import json as jsonlib
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.plain import one_line
from services.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN_CHARACTERS = 320
_FORM = {
    "filter": 'filter of the API, in JSON: \'{"field": "year", "range": {"gte": 1990}}\'',
    "sort": "field to sort by: year, year:asc or year:desc; repeatable",
    "facet": "values to count: genre, genre:25 (the 25 most frequent) or printed:month; repeatable",
}


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
    filter: Annotated[str | None, typer.Option(help=_FORM["filter"])] = None,  # noqa: A002 (as in the API)
    sort: Annotated[list[str] | None, typer.Option(help=_FORM["sort"])] = None,
    facet: Annotated[list[str] | None, typer.Option(help=_FORM["facet"])] = None,
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
    api_url: Annotated[str | None, typer.Option("--api", help="address of the API; default: of the settings")] = None,
) -> None:
    """Search one index, or several as one, and show the best passages.

    Example: sparsewell search "revenge at sea" --index books --mode hybrid --size 5
    """
    body: dict[str, Any] = {"query": query, "mode": mode, "size": size, "explain": explain}
    asked = {
        "rerank": {} if rerank else None,
        "feedback": {} if feedback else None,
        "like": like,
        "unlike": unlike,
        "context": {"turns": after} if after else None,
        "unit": unit if unit != "document" else None,
        "per_document": per_document,
    }
    body |= {name: value for name, value in asked.items() if value is not None}
    body |= _selection(filter, sort or [], facet or [])
    answer = ask(api_url, index, body)
    if json:
        print(jsonlib.dumps(answer, ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    show(answer, Console(highlight=False))


def _selection(filter_json: str | None, sort: list[str], facets: list[str]) -> dict[str, Any]:
    if filter_json is None and not sort and not facets:
        return {}
    from query_api.search.short_form import read_short
    from services.web.answers import utf8

    for text in (*sort, *facets):
        utf8(text, "--sort and --facet")
    try:
        return read_short(filter_json, sort, facets)
    except InvalidInput as error:
        raise InvalidInput(error.code, f"--{error.detail}") from None


def ask(api_url: str | None, indexes: list[str], body: dict[str, Any]) -> dict[str, Any]:
    """Send a search over one index or several. Raises SparsewellError with the code and detail of the API."""
    import httpx

    from cli.api_answers import api_address, away, connect, index_path
    from services.settings import Settings
    from services.web.answers import read_answer, utf8

    base = api_address(Settings.read(), api_url)
    paths = [index_path(index) for index in indexes]
    path = paths[0] if len(paths) == 1 else "/v1"
    body = body if len(paths) == 1 else body | {"indexes": indexes}
    for name in ("query", "mode", "unit"):
        utf8(body.get(name, ""), f"The {name}")
    for text in (*body.get("like", ()), *body.get("unlike", ()), *body.get("context", {}).get("turns", ())):
        utf8(text, "An id or a turn")
    with connect(base, timeout=30) as client:
        try:
            return read_answer(client.post(f"{path}/search", json=body))
        except httpx.HTTPError as error:
            raise away(base, error) from None


def show(answer: dict[str, Any], console: "Console") -> None:
    """Print rank, score, title and best passage of each hit; with contributions and counts if requested."""
    from rich.text import Text

    if not answer["hits"]:
        console.print("No hits.")
    if "did_you_mean" in answer:
        console.print(Text(f"Did you mean: {one_line(answer['did_you_mean']['query'])}", "yellow"))
    for rank, hit in enumerate(answer["hits"], 1):
        scores = "  ".join(f"{name} {score:.2f}" for name, score in hit["scores"].items())
        head = Text.assemble((f"{rank:>3}  ", "dim"), (hit.get("title") or hit["id"], "bold"))
        if "index" in hit:
            head.append(f"  {hit['index']}", "cyan")
        if hit["score"] is not None:
            head.append(f"  {hit['score']:.3f}  ({scores})", "dim")
        console.print(head)
        if "chapter" in hit or "link" in hit:
            console.print(Text(f"     {_where(hit)}", "magenta"))
        if "passage" in hit:
            passage = " ".join(hit["passage"]["text"].split())
            shown = textwrap.shorten(passage, _SHOWN_CHARACTERS, placeholder=" …")
            console.print(Text(textwrap.indent(textwrap.fill(shown, 100), "     ")))
        for why in hit.get("why", [])[:8]:
            added = "  (expansion)" if why["expansion"] else ""
            if "query" not in (why.get("origins") or {"query": 0}):
                added += f"  from {', '.join(why['origins'])}"
            console.print(Text(f"     {why['contribution']:8.2f}  {why['list']}: {why['piece']}{added}", "cyan"))
    _show_counts(answer, console)
    fed_back = answer.get("feedback")
    if fed_back is not None:
        said = "; ".join(f"{name.replace('_', ' ')}: {', '.join(ids)}" for name, ids in fed_back.items() if ids)
        console.print(Text(f"Feedback: {said or 'nothing'}", "dim"))
    reranked = answer.get("rerank")
    if reranked is not None and not reranked["applied"]:
        console.print(Text(f"Not reranked: {reranked['reason']}", "yellow"))
    timings = answer["timings_ms"]
    stages = ", ".join(f"{stage} {value:.2f}" for stage, value in timings.items() if stage != "total")
    console.print(Text(f"{timings['total']:.1f} ms ({stages})", "dim"))


def _where(hit: dict[str, Any]) -> str:
    """Return the chapter, time, speaker and link of a hit."""
    chapter, passage = hit.get("chapter"), hit.get("passage", {})
    said = [] if chapter is None else [f"{chapter['number']}. {one_line(chapter['title'])}"]
    if "start_time" in passage:
        minutes, seconds = divmod(int(passage["start_time"]), 60)
        said.append(f"{minutes // 60}:{minutes % 60:02}:{seconds:02}")
    if "speaker" in passage:
        said.append(one_line(passage["speaker"]))
    return "  ".join([*said, hit["link"]] if "link" in hit else said)


def _show_counts(answer: dict[str, Any], console: "Console") -> None:
    from rich.text import Text

    if "counted" in answer:
        what = "that match" if answer["counted"]["among"] == "matches" else "among the candidates"
        console.print(Text(f"{answer['counted']['documents']:,} documents {what}", "bold"))
    for field, facet in answer.get("facets", {}).items():
        buckets = [(_named(bucket), bucket["count"]) for bucket in facet["buckets"]]
        if facet["other"]:
            buckets.append(("…", facet["other"]))
        counts = ", ".join(f"{name} {count:,}" for name, count in buckets)
        console.print(Text.assemble((f"     {field}: ", "cyan"), counts or "none"))


def _named(bucket: dict[str, Any]) -> str:
    if "range" in bucket:
        return " ".join(f"{name} {bound}" for name, bound in bucket["range"].items())
    value = bucket["value"]
    return value if isinstance(value, str) and value else jsonlib.dumps(value)
