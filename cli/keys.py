"""`sparsewell keys`: create, list, rotate and revoke API keys, with a key that administers every index."""

import json as jsonlib
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Create, list, show, rotate and revoke API keys.")

Api = Annotated[str | None, typer.Option("--api", help="address of the API; default: of the settings")]
Json = Annotated[bool, typer.Option("--json", help="print the answer of the API as JSON")]
Id = Annotated[str, typer.Argument(help="id of the key, between the first two underscores of its text")]
_DAY = 86_400


@app.command()
def generate() -> None:
    """Print a new key for SPARSEWELL_ADMIN_KEY_FILE or SPARSEWELL_MODEL_KEY_FILE. It is stored nowhere.

    Example: sparsewell keys generate
    """
    from services.access.key_text import new_key, new_key_id

    print(new_key(new_key_id()))


@app.command()
def create(  # noqa: PLR0913, PLR0917 (each is an option of the command)
    name: Annotated[str, typer.Argument(help="user and purpose of the key")],
    scope: Annotated[list[str], typer.Option("--scope", "-s", help="search, ingest or admin; repeatable")],
    index: Annotated[
        list[str] | None,
        typer.Option("--index", "-i", help="name of an index, or a prefix (logs-*); repeatable; default: all indexes"),
    ] = None,
    filter: Annotated[  # noqa: A002 (as in the API)
        str | None, typer.Option(help="filter in JSON: the key sees only documents that satisfy it")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="days until the key expires; default: never")] = None,
    rate: Annotated[float | None, typer.Option(help="maximum requests per second")] = None,
    burst: Annotated[int | None, typer.Option(help="maximum requests at once")] = None,
    daily: Annotated[int | None, typer.Option(help="maximum requests per day (UTC)")] = None,
    json: Json = False,
    api_url: Api = None,
) -> None:
    """Create a key and print its text, which is shown only once.

    Example: sparsewell keys create "web shop" --scope search --index books --days 365
    """
    from datetime import UTC, datetime, timedelta

    body: dict[str, Any] = {"name": name, "scopes": scope, "indexes": index or ["*"]}
    limits = {"requests_per_second": rate, "burst": burst, "requests_per_day": daily}
    body |= {key: value for key, value in limits.items() if value is not None}
    if filter is not None:
        body["filter"] = _parsed(filter)
    if days is not None:
        body["expires_at"] = (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")
    _made(_ask(api_url, "POST", "", body=body), json)


@app.command("list")
def list_(
    revoked: Annotated[bool, typer.Option("--revoked", help="include revoked keys")] = False,
    json: Json = False,
    api_url: Api = None,
) -> None:
    """List the keys, the latest first, without their texts.

    Example: sparsewell keys list --revoked
    """
    answer = _ask(api_url, "GET", "", {"revoked": str(revoked).lower()})
    if json:
        _print(answer)
        return
    for one in answer["keys"]:
        print("  ".join(_said(one)))
    if not answer["keys"]:
        print("There are no keys.")


@app.command()
def show(key: Id, api_url: Api = None) -> None:
    """Show the rights of a key and the expiry of its secrets.

    Example: sparsewell keys show KEY_ID
    """
    _print(_ask(api_url, "GET", f"/{_part(key)}"))


@app.command()
def rotate(
    key: Id,
    days: Annotated[float, typer.Option(min=0, max=365, help="days until the old secret ends")] = 7,
    json: Json = False,
    api_url: Api = None,
) -> None:
    """Give a key a second secret and print its text. The old secret ends by itself.

    Example: sparsewell keys rotate KEY_ID --days 7
    """
    body = {"overlap_seconds": round(days * _DAY)}
    _made(_ask(api_url, "POST", f"/{_part(key)}/rotate", body=body), json)


@app.command()
def revoke(key: Id, api_url: Api = None) -> None:
    """Revoke a key with all its secrets, within seconds.

    Example: sparsewell keys revoke KEY_ID
    """
    _ask(api_url, "DELETE", f"/{_part(key)}")
    print(f"{key} is revoked.")


def _ask(
    api_url: str | None,
    method: str,
    path: str,
    parameters: dict[str, Any] | None = None,
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    import httpx

    from cli.api_answers import admin_headers, api_address, away, connect
    from services.settings import Settings
    from services.web.answers import read_answer

    settings = Settings.read()
    base = api_address(settings, api_url)
    with connect(base, timeout=30) as client:
        try:
            headers = admin_headers(settings)
            return read_answer(client.request(method, f"/v1/keys{path}", params=parameters, json=body, headers=headers))
        except httpx.HTTPError as error:
            raise away(base, error) from None


def _parsed(text: str) -> Any:
    """A filter. (Not by `query_api`: the workers' image, in which people run commands, has no such package.)"""
    from services.errors import InvalidInput

    try:
        return jsonlib.loads(text)
    except ValueError as error:
        raise InvalidInput("bad_filter", f"--filter: this is not JSON ({error}).") from None


def _part(key: str) -> str:
    from services.web.answers import path_part

    return path_part(key, "The id of the key")


def _made(answer: dict[str, Any], json: bool) -> None:
    """The text on standard output, alone, so that it can be piped into a secret store."""
    if json:
        _print(answer)
        return
    import sys

    print("  ".join(_said(answer)), file=sys.stderr)
    print("Store this key now: it is shown only once.", file=sys.stderr)
    print(answer["key"])


def _said(one: dict[str, Any]) -> list[str]:
    parts = [one["id"], one["name"], ",".join(one["scopes"]), ",".join(one["indexes"])]
    if one["filter"] is not None:
        parts.append(f"filter {jsonlib.dumps(one['filter'], ensure_ascii=False)}")
    for member, word in (("expires_at", "expires"), ("revoked_at", "revoked")):
        if one[member] is not None:
            parts.append(f"{word} {one[member]}")
    parts += [f"a secret ends {each['ends_at']}" for each in one["secrets"] if each["ends_at"] is not None]
    return parts


def _print(answer: dict[str, Any]) -> None:
    print(jsonlib.dumps(answer, ensure_ascii=False, indent=2))
