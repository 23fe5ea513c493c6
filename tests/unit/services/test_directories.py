"""Accounts of child processes, directories, and locks."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local_servers import LocalSettings
from services.directories import (
    Account,
    can_reach,
    child_account,
    hold_lock,
    make_directory,
    resolve_cache_directory,
    resolve_state_directory,
    temporary_state_directory,
)
from services.errors import ConfigurationError

Eventually = Callable[[Callable[[], object], float, str], None]
STRANGER = Account("stranger", 64321, 64321)


def test_as_root_children_get_the_unprivileged_account() -> None:
    account = child_account("nobody", euid=0)
    assert account is not None
    assert account.name == "nobody"
    assert account.uid != 0


def test_children_of_an_ordinary_user_keep_its_account() -> None:
    assert child_account("nobody", euid=1000) is None


@pytest.mark.parametrize(("name", "code"), [("root", "root_refused"), ("no-such-user-here", "unknown_user")])
def test_unusable_accounts_are_refused(name: str, code: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        child_account(name, euid=0)
    assert caught.value.code == code
    assert "SPARSEWELL_RUN_AS" in caught.value.detail


def test_a_closed_parent_directory_is_unreachable(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o700)
    assert not can_reach(inner, STRANGER)
    assert can_reach(Path("/usr/bin"), STRANGER)
    assert can_reach(inner, None)


def test_the_owner_reaches_a_closed_directory(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    us = Account("us", os.geteuid(), os.getegid())
    assert can_reach(closed, us)


def test_a_directory_that_the_account_cannot_enter_is_an_error(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        # Only root can change the owner of a directory. For other accounts the change is refused.
        with pytest.raises(ConfigurationError, match="directory_unusable"):
            make_directory(tmp_path / "state", STRANGER)
        return
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigurationError, match="directory_unreachable"):
        make_directory(tmp_path / "state", STRANGER)


def test_a_file_in_place_of_a_directory_is_an_error_that_names_the_settings(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="SPARSEWELL_STATE_DIR") as caught:
        make_directory(tmp_path / "file" / "below")
    assert caught.value.code == "directory_unusable"


def test_default_directories_of_root_and_of_other_users(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_configured_directories_win(tmp_path: Path) -> None:
    settings = LocalSettings(cache_dir=tmp_path / "c", state_dir=tmp_path / "s")
    assert (resolve_cache_directory(settings, euid=0), resolve_state_directory(settings, euid=0)) == (
        tmp_path / "c",
        tmp_path / "s",
    )


def test_a_temporary_state_directory_is_reachable_and_removed() -> None:
    with temporary_state_directory(None) as directory:
        assert can_reach(directory, STRANGER)
        (directory / "file").write_text("x")
    assert not directory.exists()


def test_an_invalid_setting_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEWELL_REDIS_PORT", "many")
    with pytest.raises(ConfigurationError, match="SPARSEWELL_REDIS_PORT") as caught:
        LocalSettings.read()
    assert caught.value.code == "bad_setting"


def test_a_second_holder_of_a_lock_is_notified_and_waits(tmp_path: Path, eventually: Eventually) -> None:
    order: list[str] = []

    def second() -> None:
        with hold_lock(tmp_path / "lock", lambda: order.append("told")):
            order.append("second")

    thread = threading.Thread(target=second)
    with hold_lock(tmp_path / "lock", lambda: order.append("never")):
        thread.start()
        eventually(lambda: order == ["told"], 60, "the second is told to wait")
        order.append("first")
    thread.join(5)
    assert order == ["told", "first", "second"]
