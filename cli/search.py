"""Asks the API and prints hits for a person, or the answer as it came."""

import json as jsonlib
import textwrap
from typing import Any

import httpx
from rich.console import Console
from rich.text import Text

from services.errors import BackendUnavailable, ConfigurationError, InvalidInput, SparsewellError
from services.settings import Settings

_SHOWN_CHARACTERS = 320


def run(query: str, index: str, mode: str, size: int, explain: bool, json: bool, api_url: str | None) -> None:
    """Prints the answer. Raises SparsewellError with the API's own code and words."""
    answer = ask(api_url, index, {"query": query, "mode": mode, "size": size, "explain": explain})
    if json:
        print(jsonlib.dumps(answer, ensure_ascii=False, indent=2))
    else:
        show(answer, Console(highlight=False))


def ask(api_url: str | None, index: str, body: dict[str, Any]) -> dict[str, Any]:
    """One POST to the search endpoint."""
    settings = Settings.read()
    base = (api_url or f"http://{settings.api_host}:{settings.api_port}").rstrip("/")
    try:
        response = httpx.post(f"{base}/v1/indexes/{index}/search", json=body, timeout=30)
    except httpx.InvalidURL as error:
        raise ConfigurationError("bad_address", f"{base} is not an address: {error}.") from None
    except httpx.HTTPError:
        raise BackendUnavailable(
            "api_unavailable", f"No API answers at {base}: start it with `sparsewell up`, or name it with --api."
        ) from None
    try:
        answer: dict[str, Any] = response.json()
    except ValueError:
        raise BackendUnavailable("api_unavailable", f"What answers at {base} is not sparsewell.") from None
    if response.is_error:
        kind: type[SparsewellError] = InvalidInput if response.status_code < 500 else BackendUnavailable
        raise kind(answer.get("code", "error"), answer.get("detail", response.reason_phrase))
    return answer


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
            console.print(Text(f"     {why['contribution']:8.2f}  {why['list']}: {why['piece']}{added}", "cyan"))
    timings = answer["timings_ms"]
    stages = ", ".join(f"{stage} {value:.2f}" for stage, value in timings.items() if stage != "total")
    console.print(Text(f"{timings['total']:.1f} ms ({stages})", "dim"))
