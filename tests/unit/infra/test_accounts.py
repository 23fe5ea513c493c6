"""Who runs the servers, and whether that user gets to their files."""

import os
from pathlib import Path

import pytest

from infra.settings import LocalSettings
from services.directories import (
    Account,
    can_reach,
    child_account,
    make_directory,
    resolve_cache_directory,
    resolve_state_directory,
    temporary_state_directory,
)
from services.errors import ConfigurationError

STRANGER = Account("stranger", 64321, 64321)


def test_root_hands_over_to_the_unprivileged_account() -> None:
    account = child_account("nobody", euid=0)
    assert account is not None
    assert account.name == "nobody"
    assert account.uid != 0


def test_an_ordinary_user_stays_itself() -> None:
    assert child_account("nobody", euid=1000) is None


@pytest.mark.parametrize(("name", "code"), [("root", "root_refused"), ("no-such-user-here", "unknown_user")])
def test_unusable_accounts_are_refused(name: str, code: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        child_account(name, euid=0)
    assert caught.value.code == code
    assert "SPARSEWELL_RUN_AS" in caught.value.detail


def test_a_closed_directory_above_is_noticed(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o700)
    assert not can_reach(inner, STRANGER)
    assert can_reach(Path("/usr/bin"), STRANGER)
    assert can_reach(inner, None)


def test_the_owner_of_a_closed_directory_gets_in(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    us = Account("us", os.geteuid(), os.getegid())
    assert can_reach(closed, us)


def test_a_directory_that_its_owner_cannot_enter_is_an_error(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        # Only root gives directories away; everybody else meets the refusal to do so.
        with pytest.raises(ConfigurationError, match="directory_unusable"):
            make_directory(tmp_path / "state", STRANGER)
        return
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigurationError, match="directory_unreachable"):
        make_directory(tmp_path / "state", STRANGER)


def test_a_file_in_the_way_is_an_error_that_names_the_settings(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="SPARSEWELL_STATE_DIR") as caught:
        make_directory(tmp_path / "file" / "below")
    assert caught.value.code == "directory_unusable"


def test_places_of_root_and_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    settings = LocalSettings(cache_dir=None, state_dir=None)
    assert resolve_cache_directory(settings, euid=0) == Path("/var/cache/sparsewell")
    assert resolve_state_directory(settings, euid=0) == Path("/var/lib/sparsewell")
    assert resolve_cache_directory(settings, euid=1000) == Path("/caches/sparsewell")
    assert resolve_state_directory(settings, euid=1000) == Path("/home/someone/.local/state/sparsewell")
    # The XDG specification says to ignore a relative path.
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    assert resolve_cache_directory(settings, euid=1000) == Path("/home/someone/.cache/sparsewell")


def test_named_places_win(tmp_path: Path) -> None:
    settings = LocalSettings(cache_dir=tmp_path / "c", state_dir=tmp_path / "s")
    assert (resolve_cache_directory(settings, euid=0), resolve_state_directory(settings, euid=0)) == (
        tmp_path / "c",
        tmp_path / "s",
    )


def test_temporary_state_is_reachable_and_goes() -> None:
    with temporary_state_directory(None) as directory:
        assert can_reach(directory, STRANGER)
        (directory / "file").write_text("x")
    assert not directory.exists()


def test_a_bad_setting_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEWELL_REDIS_PORT", "many")
    with pytest.raises(ConfigurationError, match="SPARSEWELL_REDIS_PORT") as caught:
        LocalSettings.read()
    assert caught.value.code == "bad_setting"
