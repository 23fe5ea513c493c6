"""Asks the API and prints hits for a person, or the answer as it came."""

import json as jsonlib
import textwrap
from typing import Any

import httpx
from rich.console import Console
from rich.text import Text

from cli.api_answers import api_address, away, connect, index_path
from services.settings import Settings
from services.web.answers import read_answer, utf8

_SHOWN_CHARACTERS = 320


def run(api_url: str | None, index: str, body: dict[str, Any], *, json: bool) -> None:
    """Prints the answer. Raises SparsewellError with the API's own code and words."""
    answer = ask(api_url, index, body)
    if json:
        print(jsonlib.dumps(answer, ensure_ascii=False, indent=2))
    else:
        show(answer, Console(highlight=False))


def ask(api_url: str | None, index: str, body: dict[str, Any]) -> dict[str, Any]:
    """One POST to the search endpoint."""
    base = api_address(Settings.read(), api_url)
    path = index_path(index)
    for name in ("query", "mode"):
        utf8(body[name], f"The {name}")
    for text in (*body.get("like", ()), *body.get("unlike", ()), *body.get("context", {}).get("turns", ())):
        utf8(text, "An id or a turn")
    with connect(base, timeout=30) as client:
        try:
            return read_answer(client.post(f"{path}/search", json=body))
        except httpx.HTTPError as error:
            raise away(base, error) from None


def show(answer: dict[str, Any], console: Console) -> None:
    """Rank, score, title and best passage of each hit; contributions when they were asked for."""
    if not answer["hits"]:
        console.print("Nothing matches.")
    for rank, hit in enumerate(answer["hits"], 1):
        scores = "  ".join(f"{name} {score:.2f}" for name, score in hit["scores"].items())
        head = Text.assemble((f"{rank:>3}  ", "dim"), (hit.get("title") or hit["id"], "bold"))
        head.append(f"  {hit['score']:.3f}  ({scores})", "dim")
        console.print(head)
        passage = " ".join(hit["passage"]["text"].split())
        shown = textwrap.shorten(passage, _SHOWN_CHARACTERS, placeholder=" …")
        console.print(Text(textwrap.indent(textwrap.fill(shown, 100), "     ")))
        for why in hit.get("why", [])[:8]:
            added = "  (expansion)" if why["expansion"] else ""
            if "query" not in (why.get("origins") or {"query": 0}):
                added += f"  from {', '.join(why['origins'])}"
            console.print(Text(f"     {why['contribution']:8.2f}  {why['list']}: {why['piece']}{added}", "cyan"))
    fed_back = answer.get("feedback")
    if fed_back is not None:
        said = "; ".join(f"{name.replace('_', ' ')}: {', '.join(ids)}" for name, ids in fed_back.items() if ids)
        console.print(Text(f"Fed back: {said or 'nothing'}", "dim"))
    reranked = answer.get("rerank")
    if reranked is not None and not reranked["applied"]:
        console.print(Text(f"Not reranked: {reranked['reason']}", "yellow"))
    timings = answer["timings_ms"]
    stages = ", ".join(f"{stage} {value:.2f}" for stage, value in timings.items() if stage != "total")
    console.print(Text(f"{timings['total']:.1f} ms ({stages})", "dim"))
