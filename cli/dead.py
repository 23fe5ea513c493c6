"""`sparsewell dead`: list and retry dead letters, the documents that could not be encoded."""

import json as jsonlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal import sanitise_line

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import IndexResource

app = typer.Typer(no_args_is_help=True, help="List and retry dead letters, the documents that could not be encoded.")

_PAGE_DOCUMENTS = 100  # documents the API lists in one answer
_BATCH_DOCUMENTS = 1000  # ids it takes in one request
_MAX_PRINTED_IDS = 20  # documents that are named, of those that were not retried

ApiOption = Annotated[str | None, typer.Option("--api", help="address of the API; default: of the settings")]
JsonOption = Annotated[bool, typer.Option("--json", help="print the answer of the API as JSON")]


@app.command("list")
def list_(
    index: Annotated[str, typer.Argument(help="index of the documents")],
    size: Annotated[
        int, typer.Option("--size", "-n", min=1, help="number of documents to show, the latest deaths first")
    ] = 20,
    json: JsonOption = False,
    api_url: ApiOption = None,
) -> None:
    """Show dead documents with their error and number of attempts.

    Example: sparsewell dead list books --size 50
    """
    ask = _open_resource(api_url, index).ask
    answer = ask("GET", "", {"size": min(size, _PAGE_DOCUMENTS)}, None)
    while answer["cursor"] is not None and (missing := size - len(answer["dead"])) > 0:
        more = ask("GET", "", {"size": min(missing, _PAGE_DOCUMENTS), "cursor": answer["cursor"]}, None)
        answer = more | {"dead": answer["dead"] + more["dead"]}
    if json:
        print(jsonlib.dumps(answer, ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    _print_dead_letters(answer, Console(highlight=False))


@app.command()
def retry(
    index: Annotated[str, typer.Argument(help="index of the documents")],
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="ids of documents to retry")] = None,
    every: Annotated[bool, typer.Option("--all", help="retry all dead documents")] = False,
    json: JsonOption = False,
    api_url: ApiOption = None,
) -> None:
    """Make dead documents pending again, with all attempts. Exit status 1: some were not retried.

    Example: sparsewell dead retry books --all
    """
    from services.errors import InvalidInput

    if bool(ids) == every:
        raise InvalidInput("ids_or_all", "Give ids of documents to retry, or --all.")
    answers = list(_retry_in_batches(_open_resource(api_url, index), ids or []))
    answer = {
        "index": index,
        "retried": [one for answer in answers for one in answer["retried"]],
        "not_retried": [one for answer in answers for one in answer["not_retried"]],
        "failed": sum(answer["failed"] for answer in answers),
        "queued": all(answer["queued"] for answer in answers),
    }
    if json:
        print(jsonlib.dumps(answer, ensure_ascii=False, indent=2))
    else:
        _print_not_retried(answer)
    if answer["failed"]:
        raise typer.Exit(1)


def _open_resource(api_url: str | None, index: str) -> "IndexResource":
    from cli.api_client import IndexResource

    return IndexResource(api_url, index, "dead")


def _retry_in_batches(door: "IndexResource", ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the answers of the retry requests; without ids, retry all dead documents."""
    from cli.api_client import require_utf8

    for at in range(0, len(ids), _BATCH_DOCUMENTS):
        yield door.ask(
            "POST", "/retry", {}, {"ids": [require_utf8(one, "An id") for one in ids[at : at + _BATCH_DOCUMENTS]]}
        )
    cursor: str | None = None
    while not ids:
        answer = door.ask("POST", "/retry", {}, {"all": True} | ({"cursor": cursor} if cursor else {}))
        yield answer
        cursor = answer["cursor"]
        if cursor is None:
            return


def _print_dead_letters(answer: dict[str, Any], console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    if not answer["dead"]:
        console.print("No document is dead.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("died", "id", "title", "attempts", "reason"):
        table.add_column(name, justify="right" if name == "attempts" else "left", overflow="fold")
    for one in answer["dead"]:
        earlier = one["earlier"]
        attempts = str(one["attempts"]) + (f" + {earlier['attempts']}" if earlier else "")
        reason = Text.assemble((one["error"]["code"], "bold"), f"  {sanitise_line(one['error']['reason'])}")
        died = (one["dead_at"] or "before it was recorded")[:19].replace("T", " ")
        # Text as it is: a title may hold what rich takes for markup.
        table.add_row(*(Text(sanitise_line(cell)) for cell in (died, one["id"], one["title"] or "", attempts)), reason)
    console.print(table)
    if answer["total"] > len(answer["dead"]):
        console.print(Text(f"{len(answer['dead']):,} of {answer['total']:,}; --size shows more.", "dim"))


def _print_not_retried(answer: dict[str, Any]) -> None:
    retried, failed = len(answer["retried"]), answer["failed"]
    print(f"{retried:,} document{'' if retried == 1 else 's'} pending again.")
    if retried and not answer["queued"]:
        print("Redis did not answer: the sweeper enqueues the documents when their leases end.")
    if failed:
        print(f"{failed:,} not retried:")
    for one in answer["not_retried"][:_MAX_PRINTED_IDS]:
        print(f"  {sanitise_line(one['id'])}: {one['reason']} [{one['code']}]")
    if failed > _MAX_PRINTED_IDS:
        print("  … (--json names more)")
