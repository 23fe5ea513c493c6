"""`sparsewell curation`: show, change, try and revert the curation rules of an index."""

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal import sanitise_line

if TYPE_CHECKING:
    from cli.api_client import IndexResource

app = typer.Typer(
    no_args_is_help=True,
    help="Manage curation rules: synonyms, pinned and hidden results, weights of terms, boosts.",
)

_BATCH_QUERIES = 50  # queries that the API takes in one request
_MAX_SHOWN = 10  # documents that are named of those that move, a query

IndexArgument = Annotated[str, typer.Argument(help="index of the rules")]
RulesArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="file with rules as JSON, or the output of show; - is standard input")
]
NoteOption = Annotated[str, typer.Option("--note", help="reason of the change, shown in the history")]
ApiOption = Annotated[str | None, typer.Option("--api", help="address of the API; default: of the settings")]


@app.command()
def show(
    index: IndexArgument,
    version: Annotated[int | None, typer.Option("--version", min=1, help="earlier version to show")] = None,
    api_url: ApiOption = None,
) -> None:
    """Print the rules as JSON. Edit the output and pass it to `set`.

    Example: sparsewell curation show books
    """
    below = "" if version is None else f"/versions/{version}"
    _print_rules(_open_resource(api_url, index).ask("GET", below))


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
    rules, read = _read_rules(file)
    match = "*" if force else _if_match_headers(read if version is None else version)
    body = {"rules": rules, "note": _read_text(note, "--note")}
    answer = _open_resource(api_url, index).ask("PUT", body=body, headers={"if-match": match} if match else None)
    print(f"{index}: version {answer['version']} of its rules is in force.")


@app.command()
def history(index: IndexArgument, api_url: ApiOption = None) -> None:
    """List the versions of the rules, the newest first.

    Example: sparsewell curation history books
    """
    for one in _open_resource(api_url, index).ask("GET", "/versions")["versions"]:
        print(f"{one['version']:>6}  {one['at'][:19].replace('T', ' ')}  {sanitise_line(one['note'])}".rstrip())


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
    door = _open_resource(api_url, index)
    old, now = door.ask("GET", f"/versions/{version}"), door.ask("GET")
    body = {"rules": old["rules"], "note": _read_text(note, "--note") or f"those of version {version}"}
    answer = door.ask("PUT", body=body, headers={"if-match": _if_match_headers(now["version"])})
    print(f"{index}: version {answer['version']} of its rules is in force, with the rules of version {version}.")


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
    from cli.search import read_given_queries

    asked = read_given_queries(query, queries)
    rules, _ = _read_rules(file)
    door = _open_resource(api_url, index)
    found: dict[str, Any] = {}
    for at in range(0, len(asked), _BATCH_QUERIES):
        body = {"rules": rules, "queries": asked[at : at + _BATCH_QUERIES], "mode": mode, "size": size}
        answer = door.ask("POST", "/dry-run", body=body)
        more = {"changed": found.get("changed", 0) + answer["changed"]}
        found = answer | more | {"queries": [*found.get("queries", []), *answer["queries"]]}
    if json:
        _print_rules(found)
        return
    for one in found["queries"]:
        _print_difference(one)
    print(f"{found['changed']:,} of {len(asked):,} queries would be answered differently.")


def _open_resource(api_url: str | None, index: str) -> "IndexResource":
    from cli.api_client import IndexResource

    return IndexResource(api_url, index, "curation")


def _read_text(given: str, name: str) -> str:
    from cli.api_client import require_utf8

    return require_utf8(given, name)


def _if_match_headers(version: int | None) -> str:
    return "" if version is None else f'"{version}"'


def _read_rules(file: str) -> tuple[dict[str, Any], int | None]:
    """The rules of a file, and of which version they are if it says so. Raises InvalidInput (`bad_rules_file`)."""
    from services.errors import InvalidInput

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
        found = jsonlib.loads(text)
        jsonlib.dumps(found, ensure_ascii=False, allow_nan=False).encode()  # what a request cannot say
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput("bad_rules_file", f"{file} cannot be read as JSON: {error}") from None
    if isinstance(found, dict) and isinstance(found.get("rules"), dict):
        version = found.get("version")
        return found["rules"], version if isinstance(version, int) else None
    if not isinstance(found, dict):
        raise InvalidInput("bad_rules_file", f"{file} is no JSON object of rules.")
    return found, None


def _print_difference(one: dict[str, Any]) -> None:
    if "error" in one:
        print(f"! {sanitise_line(one['query'])}: {one['error']['detail']} [{one['error']['code']}]")
    elif one["changed"]:
        print(f"~ {sanitise_line(one['query'])}  (overlap {one['overlap']:.2f})")
        moves = [(each["place"], f"+ {each['id']}  enters at {each['place']}") for each in one["entered"]]
        moves += [(each["place"], f"  {each['id']}  {each['was']} -> {each['place']}") for each in one["moved"]]
        moves += [(each["was"], f"- {each['id']}  was at {each['was']}") for each in one["left"]]
        for _, text in sorted(moves)[:_MAX_SHOWN]:
            print(f"    {sanitise_line(text)}")
        if len(moves) > _MAX_SHOWN:
            print("    … (--json names more)")
    else:
        print(f"= {sanitise_line(one['query'])}")


def _print_rules(answer: dict[str, Any]) -> None:
    print(jsonlib.dumps(answer, ensure_ascii=False, indent=2))
