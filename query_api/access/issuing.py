"""Making, rotating and revoking keys: each change a compare-and-swap, known to this process at once."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from query_api.keys_form import KeyRequest
from query_api.parts import AppState
from services.access.filters import checked_key_filter
from services.access.key_text import KEY_ID, digest, new_key, new_key_id
from services.access.keys import Key, Secret
from services.errors import Conflict, InvalidInput, NotFound
from services.opensearch import own_index
from services.opensearch.key_store import (
    MOST_KEYS,
    StoredKey,
    count_call,
    get_call,
    list_call,
    make_calls,
    read_count,
    read_key,
    read_keys,
    save_call,
)


async def create(app: AppState, request: KeyRequest) -> tuple[Key, str]:
    """The key and its text.

    Raises InvalidInput (`bad_key_filter`, `key_expired`), Conflict (`too_many_keys`).
    """
    now = _now()
    if request.filter is not None:
        checked_key_filter(request.filter, request.scopes)
    expires_at = None if request.expires_at is None else int(request.expires_at.timestamp() * 1000)
    if expires_at is not None and expires_at <= now:
        raise InvalidInput("key_expired", "`expires_at` has passed already.")
    name = request.name.strip() or "-"
    key_id = new_key_id()
    text = new_key(key_id)
    key = Key(
        key_id,
        name,
        tuple(dict.fromkeys(request.scopes)),
        tuple(dict.fromkeys(request.indexes)),
        request.filter,
        now,
        (Secret(digest(text), now),),
        expires_at,
        rate=request.requests_per_second,
        burst=request.burst,
        daily=request.requests_per_day,
    )
    try:
        await _admit(app)
        await _save(app, key, None)
    except NotFound:  # the very first key of all
        await own_index.make(app.search, make_calls(app.names, app.settings.replicas))
        await _save(app, key, None)
    return key, text


async def every(app: AppState, *, revoked: bool) -> list[Key]:
    """The keys, the latest first."""
    try:
        return [one.key for one in read_keys(await app.search.send(list_call(app.names, revoked=revoked)))]
    except NotFound:
        return []


async def get(app: AppState, key_id: str) -> StoredKey:
    """Raises NotFound (`key_not_found`), which does not repeat what may be a whole key."""
    try:
        if KEY_ID.fullmatch(key_id):
            return read_key(await app.search.send(get_call(app.names, key_id)))
    except NotFound:
        pass
    raise NotFound("key_not_found", "There is no key of this id, which stands between the underscores of its text.")


async def rotate(app: AppState, key_id: str, overlap: int) -> tuple[Key, str]:
    """The key with a second secret, and its new text; `overlap` in seconds. Raises Conflict, see `Key.rotated`."""
    text = new_key(key_id)
    now = _now()
    return await _change(app, key_id, lambda key: key.rotated(digest(text), now, overlap * 1000)), text


async def revoke(app: AppState, key_id: str) -> None:
    """Ends a key now; one that was revoked already stays as it is."""
    await _change(app, key_id, lambda key: replace(key, revoked_at=key.revoked_at or _now()))


async def _change(app: AppState, key_id: str, changed: Callable[[Key], Key]) -> Key:
    seen = await get(app, key_id)
    key = changed(seen.key)
    await _save(app, key, seen)
    return key


async def _save(app: AppState, key: Key, seen: StoredKey | None) -> None:
    answer = await app.search.send(save_call(app.names, key, seen))
    app.keys.take([StoredKey(key, answer["_seq_no"], answer["_primary_term"])])


async def _admit(app: AppState) -> None:
    if read_count(await app.search.send(count_call(app.names))) >= MOST_KEYS:
        raise Conflict("too_many_keys", f"There are {MOST_KEYS:,} keys, and no more may be: revoke some.")


def shown(key: Key) -> dict[str, Any]:
    """A key for answers, with the secrets that hold."""
    now = _now()
    return {
        "id": key.id,
        "name": key.name,
        "scopes": key.scopes,
        "indexes": key.indexes,
        "filter": key.filter,
        "created_at": _moment(key.created_at),
        "expires_at": _moment(key.expires_at),
        "revoked_at": _moment(key.revoked_at),
        "requests_per_second": key.rate,
        "burst": key.burst,
        "requests_per_day": key.daily,
        "secrets": [
            {"created_at": _moment(one.created_at), "ends_at": _moment(one.ends_at)}
            for one in key.secrets
            if one.holds(now)
        ],
    }


def _moment(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _now() -> int:
    return time.time_ns() // 1_000_000
