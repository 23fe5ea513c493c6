"""`sparsewell queries`: list, add and delete the frequent queries of an index.

Suggestions complete a typed prefix with these queries. The API learns them from searches; `add` imports a log.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal import ApiOption, format_json, sanitise_line

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import IndexResource

app = typer.Typer(no_args_is_help=True, help="List, add and delete the frequent queries of an index.")

_BATCH_QUERIES = 1000  # queries that the API lists in one answer, and takes in one request

IndexArgument = Annotated[str, typer.Argument(help="index of the queries")]


@app.command("list")
def list_(
    index: IndexArgument,
    size: Annotated[
        int, typer.Option("--size", "-n", min=1, max=_BATCH_QUERIES, help="number of queries to show")
    ] = 20,
    json: Annotated[bool, typer.Option("--json", help="print the answer of the API as JSON")] = False,
    api_url: ApiOption = None,
) -> None:
    """List the most frequent queries with their total and their recent count, which halves every 30 days.

    Example: sparsewell queries list books
    """
    answer = _open_resource(api_url, index).request("GET", parameters={"size": size})
    if json:
        print(format_json(answer))
        return
    from rich.console import Console

    _print_queries(answer, Console(highlight=False))


@app.command()
def add(
    index: IndexArgument,
    query: Annotated[list[str] | None, typer.Argument(metavar="[QUERY]...", help="queries to add")] = None,
    queries: Annotated[
        Path | None, typer.Option("--queries", help="file with one query per line, as often as it was sent")
    ] = None,
    times: Annotated[int, typer.Option("--times", min=1, help="count of each query")] = 1,
    api_url: ApiOption = None,
) -> None:
    """Add queries from another source, for instance a log. Exit status 1: some may not be kept.

    Example: sparsewell queries add books --queries log.txt
    """
    from cli.search import read_query_arguments
    from services.query.suggest import learnable_query

    texts = read_query_arguments(query, queries)
    # Leave out queries that may not be kept: the API refuses a whole request that contains one.
    counts = Counter(learnable for text in texts if (learnable := learnable_query(text)) is not None)
    resource, added = _open_resource(api_url, index), 0
    entries = [{"query": text, "times": count * times} for text, count in counts.items()]
    try:
        for start in range(0, len(entries), _BATCH_QUERIES):
            added += resource.request("POST", body={"queries": entries[start : start + _BATCH_QUERIES]})["added"]
    finally:  # also after a failed request: a repeated command would count the added queries twice
        print(f"{_format_query_count(added)} counted.")
    if refused := len(texts) - counts.total():
        print(f"{refused:,} not kept: they exceed 100 characters, have an @ or six digits in a row, or have no words.")
        raise typer.Exit(1)


@app.command()
def delete(
    index: IndexArgument,
    query: Annotated[list[str] | None, typer.Argument(metavar="[QUERY]...", help="queries to delete")] = None,
    every: Annotated[bool, typer.Option("--all", help="delete all queries of the index")] = False,
    api_url: ApiOption = None,
) -> None:
    """Delete frequent queries, so that they are no longer suggested.

    Example: sparsewell queries delete books "books about jane doe"
    """
    from cli.api_client import require_utf8
    from services.errors import InvalidInput

    if bool(query) == every:
        raise InvalidInput("queries_or_all", "Give the queries to delete, or --all.")
    selections = [{"q": require_utf8(text, "A query")} for text in query or []] or [{"all": "true"}]
    resource = _open_resource(api_url, index)
    deleted = sum(resource.request("DELETE", parameters=selection)["deleted"] for selection in selections)
    print(f"{_format_query_count(deleted)} deleted.")


def _open_resource(api_url: str | None, index: str) -> "IndexResource":
    from cli.api_client import IndexResource

    return IndexResource(api_url, index, "queries")


def _format_query_count(queries: int) -> str:
    return f"{queries:,} quer{'y' if queries == 1 else 'ies'}"


def _print_queries(answer: dict[str, Any], console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    if not answer["queries"]:
        console.print("No query is kept.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("times", "recent", "query"):
        table.add_column(name, justify="left" if name == "query" else "right", overflow="fold")
    for row in answer["queries"]:
        # Text prints a query unchanged. A string would be parsed as rich's markup.
        table.add_row(f"{row['times']:,}", f"{row['recent']:,.1f}", Text(sanitise_line(row["query"])))
    console.print(table)
    if answer["total"] > len(answer["queries"]):
        console.print(Text(f"{len(answer['queries']):,} of {answer['total']:,}; --size shows more.", "dim"))
