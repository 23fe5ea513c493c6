"""`sparsewell keys`: create, list, show, rotate and revoke API keys.

`generate` makes a key on this machine. The other commands need a key with the scope admin for all indexes.
"""

import json as jsonlib
from typing import Annotated, Any

import typer

from cli.terminal import ApiOption, format_json

app = typer.Typer(no_args_is_help=True, help="Create, list, show, rotate and revoke API keys.")

JsonOption = Annotated[bool, typer.Option("--json", help="print the answer of the API as JSON")]
IdArgument = Annotated[str, typer.Argument(help="id of the key, between the first two underscores of its text")]

_DAY_SECONDS = 86_400


@app.command()
def generate() -> None:
    """Print a new key for SPARSEWELL_ADMIN_KEY_FILE or SPARSEWELL_MODEL_KEY_FILE. It is stored nowhere.

    Example: sparsewell keys generate
    """
    from services.access.api_keys import generate_key, generate_key_id

    print(generate_key(generate_key_id()))


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
    documents: Annotated[float | None, typer.Option(help="maximum documents written per second")] = None,
    bytes: Annotated[  # noqa: A002 (as in the API)
        float | None, typer.Option(help="maximum bytes of documents written per second")
    ] = None,
    json: JsonOption = False,
    api_url: ApiOption = None,
) -> None:
    """Create a key and print its text, which is shown only once.

    Example: sparsewell keys create "web shop" --scope search --index books --days 365
    """
    from datetime import UTC, datetime, timedelta

    from cli.search import parse_short_forms

    body: dict[str, Any] = {"name": name, "scopes": scope, "indexes": index or ["*"]}
    limits = {
        "requests_per_second": rate,
        "burst": burst,
        "requests_per_day": daily,
        "documents_per_second": documents,
        "bytes_per_second": bytes,
    }
    body |= {key: value for key, value in limits.items() if value is not None}
    body |= parse_short_forms(filter)
    if days is not None:
        body["expires_at"] = (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")
    _print_new_key(_call_api(api_url, "POST", "", body=body), json)


@app.command("list")
def list_(
    revoked: Annotated[bool, typer.Option("--revoked", help="include revoked keys")] = False,
    json: JsonOption = False,
    api_url: ApiOption = None,
) -> None:
    """List the keys, the latest first, without their texts.

    Example: sparsewell keys list --revoked
    """
    answer = _call_api(api_url, "GET", "", {"revoked": str(revoked).lower()})
    if json:
        _print_key(answer)
        return
    for key in answer["keys"]:
        print("  ".join(_describe_rights(key)))
    if not answer["keys"]:
        print("There are no keys.")


@app.command()
def show(key: IdArgument, api_url: ApiOption = None) -> None:
    """Show the rights of a key and the expiry of its secrets.

    Example: sparsewell keys show KEY_ID
    """
    _print_key(_call_api(api_url, "GET", f"/{_quote_key_id(key)}"))


@app.command()
def rotate(
    key: IdArgument,
    days: Annotated[float, typer.Option(min=0, max=365, help="days until the old secret ends")] = 7,
    json: JsonOption = False,
    api_url: ApiOption = None,
) -> None:
    """Give a key a second secret and print its text. The old secret ends by itself.

    Example: sparsewell keys rotate KEY_ID --days 7
    """
    body = {"overlap_seconds": round(days * _DAY_SECONDS)}
    _print_new_key(_call_api(api_url, "POST", f"/{_quote_key_id(key)}/rotate", body=body), json)


@app.command()
def revoke(key: IdArgument, api_url: ApiOption = None) -> None:
    """Revoke a key with all its secrets, within seconds.

    Example: sparsewell keys revoke KEY_ID
    """
    _call_api(api_url, "DELETE", f"/{_quote_key_id(key)}")
    print(f"{key} is revoked.")


def _call_api(
    api_url: str | None,
    method: str,
    path: str,
    parameters: dict[str, Any] | None = None,
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    from cli.api_client import admin_headers, api_address, connect_api, request_json
    from services.settings import Settings

    settings = Settings.read()
    base = api_address(settings, api_url)
    with connect_api(base, timeout=30) as client:
        headers = admin_headers(settings)
        return request_json(client, base, method, f"/v1/keys{path}", params=parameters, json=body, headers=headers)


def _quote_key_id(key: str) -> str:
    from cli.api_client import quote_path_segment

    return quote_path_segment(key, "The id of the key")


def _print_new_key(answer: dict[str, Any], json: bool) -> None:
    """Print only the key's text to standard output, so that a pipe can carry it to a secret store."""
    if json:
        _print_key(answer)
        return
    import sys

    print("  ".join(_describe_rights(answer)), file=sys.stderr)
    print("Store this key now: it is shown only once.", file=sys.stderr)
    print(answer["key"])


def _describe_rights(key: dict[str, Any]) -> list[str]:
    parts = [key["id"], key["name"], ",".join(key["scopes"]), ",".join(key["indexes"])]
    if key["filter"] is not None:
        parts.append(f"filter {jsonlib.dumps(key['filter'], ensure_ascii=False)}")
    for member, word in (("expires_at", "expires"), ("revoked_at", "revoked")):
        if key[member] is not None:
            parts.append(f"{word} {key[member]}")
    parts += [f"a secret ends {secret['ends_at']}" for secret in key["secrets"] if secret["ends_at"] is not None]
    return parts


def _print_key(answer: dict[str, Any]) -> None:
    print(format_json(answer))
