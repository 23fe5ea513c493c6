"""`sparsewell curation`: show, change, try and revert the curation rules of an index.

Each change makes a new version. A change fails if another user has changed the rules since they were read (If-Match).
"""

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal import ApiOption, format_json, sanitise_line

if TYPE_CHECKING:
    from cli.api_client import IndexResource

app = typer.Typer(
    no_args_is_help=True,
    help="Manage curation rules: synonyms, pinned and hidden results, weights of terms, boosts.",
)

_BATCH_QUERIES = 50  # queries that the API takes in one request
_MAX_SHOWN = 10  # moved documents that are printed for each query

IndexArgument = Annotated[str, typer.Argument(help="index of the rules")]
RulesArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="file with rules as JSON, or the output of show; - is standard input")
]
NoteOption = Annotated[str, typer.Option("--note", help="reason of the change, shown in the history")]


@app.command()
def show(
    index: IndexArgument,
    version: Annotated[int | None, typer.Option("--version", min=1, help="earlier version to show")] = None,
    api_url: ApiOption = None,
) -> None:
    """Print the rules as JSON. Edit the output and pass it to `set`.

    Example: sparsewell curation show books
    """
    path = "" if version is None else f"/versions/{version}"
    _print_json(_open_resource(api_url, index).request("GET", path))


@app.command("set")
def set_(
    index: IndexArgument,
    file: RulesArgument,
    note: NoteOption = "",
    version: Annotated[
        int | None, typer.Option("--if-version", min=0, help="version to replace; default: the version in FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace any version")] = False,
    api_url: ApiOption = None,
) -> None:
    """Replace the rules of an index. Fails if another user has changed them since you read them.

    Example: sparsewell curation set books rules.json --note "synonyms for cardiology"
    """
    from cli.api_client import require_utf8

    rules, file_version = _read_rules(file)
    match = "*" if force else _format_etag(file_version if version is None else version)
    body = {"rules": rules, "note": require_utf8(note, "--note")}
    answer = _open_resource(api_url, index).request("PUT", body=body, headers={"if-match": match} if match else None)
    print(f"{index}: version {answer['version']} of the rules is in force.")


@app.command()
def history(index: IndexArgument, api_url: ApiOption = None) -> None:
    """List the versions of the rules, the newest first.

    Example: sparsewell curation history books
    """
    for entry in _open_resource(api_url, index).request("GET", "/versions")["versions"]:
        changed_at = entry["at"][:19].replace("T", " ")
        print(f"{entry['version']:>6}  {changed_at}  {sanitise_line(entry['note'])}".rstrip())


@app.command()
def revert(
    index: IndexArgument,
    version: Annotated[int, typer.Argument(min=1, help="version to restore")],
    note: NoteOption = "",
    api_url: ApiOption = None,
) -> None:
    """Restore the rules of an earlier version as a new version.

    Example: sparsewell curation revert books 7
    """
    from cli.api_client import require_utf8

    resource = _open_resource(api_url, index)
    earlier, current = resource.request("GET", f"/versions/{version}"), resource.request("GET")
    body = {"rules": earlier["rules"], "note": require_utf8(note, "--note") or f"rules of version {version}"}
    answer = resource.request("PUT", body=body, headers={"if-match": _format_etag(current["version"])})
    print(f"{index}: version {answer['version']} is in force, with the rules of version {version}.")


@app.command("dry-run")
def dry_run(
    index: IndexArgument,
    file: RulesArgument,
    query: Annotated[list[str] | None, typer.Argument(metavar="[QUERY]...", help="queries to try")] = None,
    queries: Annotated[Path | None, typer.Option("--queries", help="file with one query per line")] = None,
    mode: Annotated[str, typer.Option("--mode", "-m", help="sparse, lexical (BM25) or hybrid")] = "hybrid",
    size: Annotated[int, typer.Option("--size", "-n", help="number of hits to compare")] = 10,
    json: Annotated[bool, typer.Option("--json", help="print the answer of the API as JSON")] = False,
    api_url: ApiOption = None,
) -> None:
    """Show which queries would have other hits with these rules. Changes nothing.

    Example: sparsewell curation dry-run books rules.json "revenge at sea"
    """
    from cli.search import read_query_arguments

    texts = read_query_arguments(query, queries)
    rules, _ = _read_rules(file)
    resource = _open_resource(api_url, index)
    report: dict[str, Any] = {}
    for start in range(0, len(texts), _BATCH_QUERIES):
        body = {"rules": rules, "queries": texts[start : start + _BATCH_QUERIES], "mode": mode, "size": size}
        answer = resource.request("POST", "/dry-run", body=body)
        total = {"changed": report.get("changed", 0) + answer["changed"]}
        report = answer | total | {"queries": [*report.get("queries", []), *answer["queries"]]}
    if json:
        _print_json(report)
        return
    for difference in report["queries"]:
        _print_difference(difference)
    print(f"{report['changed']:,} of {len(texts):,} queries would have other hits.")


def _open_resource(api_url: str | None, index: str) -> "IndexResource":
    from cli.api_client import IndexResource

    return IndexResource(api_url, index, "curation")


def _format_etag(version: int | None) -> str:
    return "" if version is None else f'"{version}"'


def _read_rules(file: str) -> tuple[dict[str, Any], int | None]:
    """Read the rules of a file, and their version if the file has it. Raises InvalidInput (`bad_rules_file`)."""
    from services.errors import InvalidInput

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8-sig")
        content = jsonlib.loads(text)
        jsonlib.dumps(content, ensure_ascii=False, allow_nan=False).encode()  # refuses NaN and half surrogate pairs
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput("bad_rules_file", f"{file} cannot be read as JSON: {error}") from None
    if isinstance(content, dict) and isinstance(content.get("rules"), dict):
        version = content.get("version")
        return content["rules"], version if isinstance(version, int) else None
    if not isinstance(content, dict):
        raise InvalidInput("bad_rules_file", f"{file} is not a JSON object of rules.")
    return content, None


def _print_difference(difference: dict[str, Any]) -> None:
    query = sanitise_line(difference["query"])
    if "error" in difference:
        print(f"! {query}: {difference['error']['detail']} [{difference['error']['code']}]")
    elif difference["changed"]:
        print(f"~ {query}  (overlap {difference['overlap']:.2f})")
        moves = [(hit["place"], f"+ {hit['id']}  enters at {hit['place']}") for hit in difference["entered"]]
        moves += [(hit["place"], f"  {hit['id']}  {hit['was']} -> {hit['place']}") for hit in difference["moved"]]
        moves += [(hit["was"], f"- {hit['id']}  was at {hit['was']}") for hit in difference["left"]]
        for _, text in sorted(moves)[:_MAX_SHOWN]:
            print(f"    {sanitise_line(text)}")
        if len(moves) > _MAX_SHOWN:
            print("    … (--json shows more)")
    else:
        print(f"= {query}")


def _print_json(answer: dict[str, Any]) -> None:
    print(format_json(answer))
