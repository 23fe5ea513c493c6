"""What each operation asks of a key, in one table. An operation that is not in it is refused: see `authorised`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from fastapi import Request

from services.access.principal import NOBODY, Principal, Scope

Rule = frozenset[Scope]

# Anybody: what says nothing of documents, and what a probe or a browser asks before it has a key.
PUBLIC: Final[Rule] = frozenset()
_SEARCH: Final[Rule] = frozenset({"search"})
_INGEST: Final[Rule] = frozenset({"ingest"})
_EITHER: Final[Rule] = frozenset({"search", "ingest"})
_ADMIN: Final[Rule] = frozenset({"admin"})

# By operation id; the page's files, which the OpenAPI document does not show, by path.
OPERATIONS: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "/": PUBLIC,
        "/operate": PUBLIC,
        "/favicon.ico": PUBLIC,
        "/static/{name}": PUBLIC,
        "live": PUBLIC,
        "ready": PUBLIC,
        "version": _EITHER,
        "search": _SEARCH,
        "search_simply": _SEARCH,
        "search_across": _SEARCH,
        "search_batch": _SEARCH,
        "suggest": _SEARCH,
        "get_document": _SEARCH,
        "get_chapters": _SEARCH,
        "export": _SEARCH,
        "get_index": _EITHER,
        "list_indexes": _EITHER,
        "list_encoders": _EITHER,
        "ingest": _INGEST,
        "put_document": _INGEST,
        "delete_document": _INGEST,
        "get_job": _INGEST,
        "list_dead": _INGEST,
        "retry_dead": _INGEST,
        "create_index": _ADMIN,
        "delete_index": _ADMIN,
        "get_curation": _ADMIN,
        "put_curation": _ADMIN,
        "list_curation_versions": _ADMIN,
        "get_curation_version": _ADMIN,
        "dry_run_curation": _ADMIN,
        "status": _ADMIN,
        "list_queries": _ADMIN,
        "add_queries": _ADMIN,
        "delete_queries": _ADMIN,
        # (of every index, too: see `query_api.routes.keys`)
        "create_key": _ADMIN,
        "list_keys": _ADMIN,
        "get_key": _ADMIN,
        "rotate_key": _ADMIN,
        "revoke_key": _ADMIN,
        "who_am_i": _EITHER,
    }
)
# Where the gate leaves who asks.
WHO: Final = "sparsewell.who"


async def authorised(request: Request) -> None:
    """A dependency of every route: nothing behind it runs unless the caller may do this.

    Raises Unauthorized (`no_credentials`), Forbidden (`insufficient_scope`, `index_forbidden`).
    """
    route = request.scope["route"]
    demand(principal_of(request), OPERATIONS[route.operation_id or route.path], request.path_params.get("index"))


def demand(who: Principal, rule: Rule, index: str | None) -> None:
    """Raises what `authorised` does."""
    if rule is PUBLIC:
        return
    who.demand_scope(rule)
    if index is not None:
        who.demand_index(index)


def principal_of(request: Request) -> Principal:
    """Who asks; nobody where no gate was passed."""
    who: Principal = request.scope.get(WHO, NOBODY)
    return who
