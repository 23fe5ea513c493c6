"""API keys: their text, their stored form, validity and rotation."""

import hmac

import pytest

from services.access.api_keys import (
    KEY_PATTERN,
    TOKEN_PATTERN,
    ApiKey,
    KeySecret,
    digest_key,
    generate_key,
    generate_key_id,
)
from services.access.principals import EVERYBODY
from services.errors import Conflict
from services.web.http_auth import matches_any_digest

TEXT = generate_key(generate_key_id())


def made(**changed: object) -> ApiKey:
    members = {
        "id": "k", "name": "shop", "scopes": ("search",), "indexes": ("books",), "filter": None, "created_at": 0,
        "secrets": (KeySecret(digest_key(TEXT), 0),),
    }  # fmt: skip
    return ApiKey(**members | changed)  # type: ignore[arg-type]


def test_a_key_holds_256_random_bits_and_fits_a_header() -> None:
    found = KEY_PATTERN.fullmatch(TEXT)
    assert found is not None and TOKEN_PATTERN.fullmatch(TEXT)
    assert len(found[2]) * 5 >= 256
    assert len({generate_key("a" * 16) for _ in range(100)}) == 100
    assert KEY_PATTERN.fullmatch(TEXT + "a") is None


def test_the_stored_form_does_not_contain_the_text() -> None:
    kept = repr(made().source())
    assert KEY_PATTERN.search(kept) is None and KEY_PATTERN.fullmatch(TEXT)[2] not in kept  # type: ignore[index]
    assert ApiKey.read(made().source()) == made()


def test_an_expired_or_revoked_key_is_invalid() -> None:
    assert made().accepts(digest_key(TEXT), 10**15)
    assert not made().accepts(digest_key(TEXT + "x"), 1)
    assert made(expires_at=100).accepts(digest_key(TEXT), 99)
    assert not made(expires_at=100).accepts(digest_key(TEXT), 100)
    assert not made(revoked_at=5).accepts(digest_key(TEXT), 6)


def test_both_secrets_are_valid_during_a_rotation() -> None:
    newer = generate_key("k" * 16)
    both = made().rotated(digest_key(newer), now=1000, overlap=500)
    assert all(both.accepts(digest_key(one), 1499) for one in (TEXT, newer))
    assert not both.accepts(digest_key(TEXT), 1500) and both.accepts(digest_key(newer), 1500)
    with pytest.raises(Conflict, match="key_rotating"):
        both.rotated(digest_key(TEXT), 1499, 0)
    again = both.rotated(digest_key(generate_key("k" * 16)), 1500, 0)
    assert len(again.secrets) == 2 and not again.accepts(digest_key(TEXT), 1500)
    with pytest.raises(Conflict, match="key_ended"):
        made(revoked_at=1).rotated(digest_key(newer), 2, 0)


def test_every_digest_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    digests = [digest_key(one) for one in (TEXT, generate_key("k" * 16), generate_key("j" * 16))]
    both = made().rotated(digests[1], now=1000, overlap=500)
    for presented, known in zip(digests, (True, True, False), strict=True):
        wanted = [{one, presented} for one in digests[:2]]
        assert both.accepts(presented, 1200) == known
        assert [set(pair) for pair in compared] == wanted
        compared.clear()
        assert matches_any_digest(presented, digests[:2]) == known
        assert [set(pair) for pair in compared] == wanted
        compared.clear()


def test_marks_differ_when_visibility_differs() -> None:
    marks = {
        made().principal().fingerprint,
        made(id="j").principal().fingerprint,
        made(filter={"field": "a", "is": 1}).principal().fingerprint,
        made(indexes=("*",)).principal().fingerprint,
        EVERYBODY.fingerprint,
    }
    assert len(marks) == 5
