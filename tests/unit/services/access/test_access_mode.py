"""The access mode: open on loopback only, unless a setting decides otherwise."""

from pathlib import Path

import pytest

from services.access.api_keys import generate_key, is_loopback_host, read_key_file, read_model_keys, resolve_access_mode
from services.errors import ConfigurationError
from services.settings import Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.0.1", "::1", "localhost"])
def test_a_loopback_service_is_open_by_default(host: str) -> None:
    assert resolve_access_mode(Settings(api_host=host)) == "open"
    assert read_model_keys(Settings(), host) == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "search.internal", ""])  # noqa: S104
def test_other_hosts_need_an_explicit_access_mode(host: str) -> None:
    assert not is_loopback_host(host)
    for refuse in (lambda: resolve_access_mode(Settings(api_host=host)), lambda: read_model_keys(Settings(), host)):
        with pytest.raises(ConfigurationError, match="SPARSEWELL_ACCESS=open") as refused:
            refuse()
        assert refused.value.code == "access_undecided"
    assert resolve_access_mode(Settings(api_host=host, access="open")) == "open"
    assert resolve_access_mode(Settings(api_host=host, access="keys")) == "keys"
    assert read_model_keys(Settings(access="open"), host) == ()


def test_configured_keys_are_required_on_loopback_too() -> None:
    assert resolve_access_mode(Settings(admin_key_file="/etc/key")) == "keys"
    assert resolve_access_mode(Settings(oidc_issuer="https://id.example")) == "keys"
    assert resolve_access_mode(Settings(admin_key_file="/etc/key", access="open")) == "open"


def test_a_key_file_holds_one_or_two_keys_and_is_never_quoted(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    keys = (generate_key("a" * 16), generate_key("b" * 16))
    file.write_text("\n".join(keys) + "\n")
    assert read_key_file(str(file), "X") == keys
    assert read_key_file("", "X") == ()
    assert read_model_keys(Settings(model_key_file=str(file)), "0.0.0.0") == keys  # noqa: S104
    for content in ("", "tooshort", f"{keys[0]}é", "a b c"):
        file.write_text(content)
        with pytest.raises(ConfigurationError, match="bad_key_file") as refused:
            read_key_file(str(file), "X")
        assert not content or content not in str(refused.value)
    with pytest.raises(ConfigurationError, match="FileNotFoundError"):
        read_key_file(str(tmp_path / "none"), "X")
