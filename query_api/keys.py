"""Making, rotating and revoking keys: each change a compare-and-swap, known to this process at once."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from query_api.app_state import AppState
from query_api.schemas.admin import KeyRequest
from services.access.api_keys import KEY_ID_PATTERN, ApiKey, KeySecret, digest_key, generate_key, generate_key_id
from services.access.principals import check_key_filter
from services.errors import Conflict, InvalidInput, NotFound
from services.opensearch.system_indexes import (
    MAX_KEYS,
    StoredKey,
    count_keys_call,
    create_system_index,
    get_key_call,
    list_keys_call,
    make_key_calls,
    read_key_count,
    read_stored_key,
    read_stored_keys,
    save_key_call,
)


async def issue_key(app: AppState, request: KeyRequest) -> tuple[ApiKey, str]:
    """The key and its text.

    Raises InvalidInput (`bad_key_filter`, `key_expired`), Conflict (`too_many_keys`).
    """
    now = _now_ms()
    if request.filter is not None:
        check_key_filter(request.filter, request.scopes)
    expires_at = None if request.expires_at is None else int(request.expires_at.timestamp() * 1000)
    if expires_at is not None and expires_at <= now:
        raise InvalidInput("key_expired", "`expires_at` has passed already.")
    name = request.name.strip() or "-"
    key_id = generate_key_id()
    text = generate_key(key_id)
    key = ApiKey(
        key_id,
        name,
        tuple(dict.fromkeys(request.scopes)),
        tuple(dict.fromkeys(request.indexes)),
        request.filter,
        now,
        (KeySecret(digest_key(text), now),),
        expires_at,
        rate=request.requests_per_second,
        burst=request.burst,
        daily=request.requests_per_day,
    )
    try:
        await _require_key_room(app)
        await _save_key(app, key, None)
    except NotFound:  # the very first key of all
        await create_system_index(app.search, make_key_calls(app.names, app.settings.replicas))
        await _save_key(app, key, None)
    return key, text


async def list_issued_keys(app: AppState, *, revoked: bool) -> list[ApiKey]:
    """The keys, the latest first."""
    try:
        return [one.key for one in read_stored_keys(await app.search.send(list_keys_call(app.names, revoked=revoked)))]
    except NotFound:
        return []


async def find_issued_key(app: AppState, key_id: str) -> StoredKey:
    """Raises NotFound (`key_not_found`), which does not repeat what may be a whole key."""
    try:
        if KEY_ID_PATTERN.fullmatch(key_id):
            return read_stored_key(await app.search.send(get_key_call(app.names, key_id)))
    except NotFound:
        pass
    raise NotFound("key_not_found", "There is no key of this id, which stands between the underscores of its text.")


async def rotate_key_secret(app: AppState, key_id: str, overlap: int) -> tuple[ApiKey, str]:
    """The key with a second secret, and its new text; `overlap` in seconds. Raises Conflict, see `Key.rotated`."""
    text = generate_key(key_id)
    now = _now_ms()
    return await _change_key(app, key_id, lambda key: key.rotated(digest_key(text), now, overlap * 1000)), text


async def revoke_issued_key(app: AppState, key_id: str) -> None:
    """Ends a key now; one that was revoked already stays as it is."""
    await _change_key(app, key_id, lambda key: replace(key, revoked_at=key.revoked_at or _now_ms()))


async def _change_key(app: AppState, key_id: str, changed: Callable[[ApiKey], ApiKey]) -> ApiKey:
    seen = await find_issued_key(app, key_id)
    key = changed(seen.key)
    await _save_key(app, key, seen)
    return key


async def _save_key(app: AppState, key: ApiKey, seen: StoredKey | None) -> None:
    answer = await app.search.send(save_key_call(app.names, key, seen))
    app.keys.take([StoredKey(key, answer["_seq_no"], answer["_primary_term"])])


async def _require_key_room(app: AppState) -> None:
    if read_key_count(await app.search.send(count_keys_call(app.names))) >= MAX_KEYS:
        raise Conflict("too_many_keys", f"There are {MAX_KEYS:,} keys, and no more may be: revoke some.")


def describe_key(key: ApiKey) -> dict[str, Any]:
    """A key for answers, with the secrets that hold."""
    now = _now_ms()
    return {
        "id": key.id,
        "name": key.name,
        "scopes": key.scopes,
        "indexes": key.indexes,
        "filter": key.filter,
        "created_at": _format_moment(key.created_at),
        "expires_at": _format_moment(key.expires_at),
        "revoked_at": _format_moment(key.revoked_at),
        "requests_per_second": key.rate,
        "burst": key.burst,
        "requests_per_day": key.daily,
        "secrets": [
            {"created_at": _format_moment(one.created_at), "ends_at": _format_moment(one.ends_at)}
            for one in key.secrets
            if one.holds(now)
        ],
    }


def _format_moment(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
