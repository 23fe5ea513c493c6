"""`sparsewell curation`: the rules of an index, shown, changed, tried, and taken back."""

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.plain import one_line

if TYPE_CHECKING:
    from cli.api_answers import Door

app = typer.Typer(
    no_args_is_help=True,
    help="Synonyms, pinned and hidden results, weights of terms, boosts, with versions.",
)

_BATCH = 50  # queries that the API takes in one request
_SHOWN = 10  # documents that are named of those that move, a query

Index = Annotated[str, typer.Argument(help="index whose rules are meant")]
Rules = Annotated[str, typer.Argument(metavar="FILE", help="rules as JSON, or what `show` printed; - reads them here")]
Note = Annotated[str, typer.Option("--note", help="why, for whoever reads the versions")]
Api = Annotated[str | None, typer.Option("--api", help="address of the API")]


@app.command()
def show(
    index: Index,
    version: Annotated[int | None, typer.Option("--version", min=1, help="an earlier version")] = None,
    api_url: Api = None,
) -> None:
    """Print the rules as JSON: edit it and give it to `set`."""
    below = "" if version is None else f"/versions/{version}"
    _print(_door(api_url, index).ask("GET", below))


@app.command("set")
def set_(
    index: Index,
    file: Rules,
    note: Note = "",
    version: Annotated[
        int | None, typer.Option("--if-version", min=0, help="the version that is replaced; none: the one in FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace whatever version there is")] = False,
    api_url: Api = None,
) -> None:
    """Replace the rules of an index; refused when somebody else has changed them since they were read."""
    rules, read = _rules(file)
    match = "*" if force else _if(read if version is None else version)
    body = {"rules": rules, "note": _text(note, "--note")}
    answer = _door(api_url, index).ask("PUT", body=body, headers={"if-match": match} if match else None)
    print(f"{index}: version {answer['version']} of its rules holds.")


@app.command()
def history(index: Index, api_url: Api = None) -> None:
    """List the versions, the newest first."""
    for one in _door(api_url, index).ask("GET", "/versions")["versions"]:
        print(f"{one['version']:>6}  {one['at'][:19].replace('T', ' ')}  {one_line(one['note'])}".rstrip())


@app.command()
def revert(
    index: Index,
    version: Annotated[int, typer.Argument(min=1, help="version whose rules are to hold again")],
    note: Note = "",
    api_url: Api = None,
) -> None:
    """Make the rules of an earlier version a new one."""
    door = _door(api_url, index)
    old, now = door.ask("GET", f"/versions/{version}"), door.ask("GET")
    body = {"rules": old["rules"], "note": _text(note, "--note") or f"those of version {version}"}
    answer = door.ask("PUT", body=body, headers={"if-match": _if(now["version"])})
    print(f"{index}: version {answer['version']} of its rules holds, with the rules of version {version}.")


@app.command("dry-run")
def dry_run(
    index: Index,
    file: Rules,
    query: Annotated[list[str] | None, typer.Argument(metavar="[QUERY]...", help="queries to try")] = None,
    queries: Annotated[Path | None, typer.Option("--queries", help="a file with a query a line")] = None,
    mode: Annotated[str, typer.Option("--mode", "-m", help="sparse, lexical or hybrid")] = "hybrid",
    size: Annotated[int, typer.Option("--size", "-n", help="hits that are compared")] = 10,
    json: Annotated[bool, typer.Option("--json", help="print what the API answered")] = False,
    api_url: Api = None,
) -> None:
    """Show which queries other rules would answer differently; nothing is changed."""
    from cli.given_queries import given_queries

    asked = given_queries(query, queries)
    rules, _ = _rules(file)
    door = _door(api_url, index)
    found: dict[str, Any] = {}
    for at in range(0, len(asked), _BATCH):
        body = {"rules": rules, "queries": asked[at : at + _BATCH], "mode": mode, "size": size}
        answer = door.ask("POST", "/dry-run", body=body)
        more = {"changed": found.get("changed", 0) + answer["changed"]}
        found = answer | more | {"queries": [*found.get("queries", []), *answer["queries"]]}
    if json:
        _print(found)
        return
    for one in found["queries"]:
        _tell(one)
    print(f"{found['changed']:,} of {len(asked):,} queries would be answered differently.")


def _door(api_url: str | None, index: str) -> "Door":
    from cli.api_answers import Door

    return Door(api_url, index, "curation")


def _text(given: str, name: str) -> str:
    from services.web.answers import utf8

    return utf8(given, name)


def _if(version: int | None) -> str:
    return "" if version is None else f'"{version}"'


def _rules(file: str) -> tuple[dict[str, Any], int | None]:
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


def _tell(one: dict[str, Any]) -> None:
    if "error" in one:
        print(f"! {one_line(one['query'])}: {one['error']['detail']} [{one['error']['code']}]")
    elif one["changed"]:
        print(f"~ {one_line(one['query'])}  (overlap {one['overlap']:.2f})")
        moves = [(each["place"], f"+ {each['id']}  enters at {each['place']}") for each in one["entered"]]
        moves += [(each["place"], f"  {each['id']}  {each['was']} -> {each['place']}") for each in one["moved"]]
        moves += [(each["was"], f"- {each['id']}  was at {each['was']}") for each in one["left"]]
        for _, text in sorted(moves)[:_SHOWN]:
            print(f"    {one_line(text)}")
        if len(moves) > _SHOWN:
            print("    … (--json names more)")
    else:
        print(f"= {one_line(one['query'])}")


def _print(answer: dict[str, Any]) -> None:
    print(jsonlib.dumps(answer, ensure_ascii=False, indent=2))
