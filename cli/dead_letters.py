"""`sparsewell dead-letters`: list and retry dead letters, the documents that could not be encoded.

A document is a dead letter after its last attempt. `retry` makes it pending again, with a full number of attempts.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal import ApiOption, format_json, sanitise_line

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import IndexResource

app = typer.Typer(no_args_is_help=True, help="List and retry dead letters, the documents that could not be encoded.")
former_app = typer.Typer(no_args_is_help=True, hidden=True, deprecated=True, help="Former name of `dead-letters`.")

_PAGE_DOCUMENTS = 100  # documents that the API lists in one answer
_BATCH_DOCUMENTS = 1000  # ids that the API takes in one request
_MAX_PRINTED_IDS = 20

JsonOption = Annotated[bool, typer.Option("--json", help="print the answer of the API as JSON")]


@former_app.callback()
def warn_of_former_name() -> None:
    """Print that the command has a new name."""
    print("sparsewell dead is now sparsewell dead-letters; the next version removes the old name.", file=sys.stderr)


@former_app.command("list")
@app.command("list")
def list_(
    index: Annotated[str, typer.Argument(help="index of the dead letters")],
    size: Annotated[
        int, typer.Option("--size", "-n", min=1, help="number of dead letters to show, the latest first")
    ] = 20,
    json: JsonOption = False,
    api_url: ApiOption = None,
) -> None:
    """Show dead letters with their error and number of attempts.

    Example: sparsewell dead-letters list books --size 50
    """
    request = _open_resource(api_url, index).request
    answer = request("GET", "", {"size": min(size, _PAGE_DOCUMENTS)}, None)
    while answer["cursor"] is not None and (missing := size - len(answer["dead"])) > 0:
        more = request("GET", "", {"size": min(missing, _PAGE_DOCUMENTS), "cursor": answer["cursor"]}, None)
        answer = more | {"dead": answer["dead"] + more["dead"]}
    if json:
        print(format_json(answer))
        return
    from rich.console import Console

    _print_dead_letters(answer, Console(highlight=False))


@former_app.command()
@app.command()
def retry(
    index: Annotated[str, typer.Argument(help="index of the dead letters")],
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="ids of dead letters to retry")] = None,
    every: Annotated[bool, typer.Option("--all", help="retry all dead letters")] = False,
    json: JsonOption = False,
    api_url: ApiOption = None,
) -> None:
    """Make dead letters pending again, with all attempts. Exit status 1: some were not retried.

    Example: sparsewell dead-letters retry books --all
    """
    from services.errors import InvalidInput

    if bool(ids) == every:
        raise InvalidInput("ids_or_all", "Give ids of dead letters to retry, or --all.")
    answers = list(_retry_in_batches(_open_resource(api_url, index), ids or []))
    answer = {
        "index": index,
        "retried": [document for answer in answers for document in answer["retried"]],
        "not_retried": [document for answer in answers for document in answer["not_retried"]],
        "failed": sum(answer["failed"] for answer in answers),
        "queued": all(answer["queued"] for answer in answers),
    }
    if json:
        print(format_json(answer))
    else:
        _print_not_retried(answer)
    if answer["failed"]:
        raise typer.Exit(1)


def _open_resource(api_url: str | None, index: str) -> "IndexResource":
    from cli.api_client import IndexResource

    return IndexResource(api_url, index, "dead-letters")


def _retry_in_batches(resource: "IndexResource", ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the answers of the retry requests; without ids, retry all dead letters."""
    from cli.api_client import require_utf8

    for start in range(0, len(ids), _BATCH_DOCUMENTS):
        batch = [require_utf8(document, "An id") for document in ids[start : start + _BATCH_DOCUMENTS]]
        yield resource.request("POST", "/retry", {}, {"ids": batch})
    cursor: str | None = None
    while not ids:
        answer = resource.request("POST", "/retry", {}, {"all": True} | ({"cursor": cursor} if cursor else {}))
        yield answer
        cursor = answer["cursor"]
        if cursor is None:
            return


def _print_dead_letters(answer: dict[str, Any], console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    if not answer["dead"]:
        console.print("There are no dead letters.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("died", "id", "title", "attempts", "reason"):
        table.add_column(name, justify="right" if name == "attempts" else "left", overflow="fold")
    for letter in answer["dead"]:
        earlier = letter["earlier"]
        attempts = str(letter["attempts"]) + (f" + {earlier['attempts']}" if earlier else "")
        reason = Text.assemble((letter["error"]["code"], "bold"), f"  {sanitise_line(letter['error']['reason'])}")
        died = (letter["dead_at"] or "before it was recorded")[:19].replace("T", " ")
        cells = (died, letter["id"], letter["title"] or "", attempts)
        # Text prints a title unchanged. A string would be parsed as rich's markup.
        table.add_row(*(Text(sanitise_line(cell)) for cell in cells), reason)
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
    for document in answer["not_retried"][:_MAX_PRINTED_IDS]:
        print(sanitise_line(f"  {document['id']}: {document['reason']} [{document['code']}]"))
    if failed > _MAX_PRINTED_IDS:
        print("  … (--json shows more)")
