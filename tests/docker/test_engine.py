"""Test the skip without an engine, and the bound of the cached images, with programs in the place of podman."""

import shutil
from pathlib import Path

import pytest

from tests.docker import engine
from tests.docker.engine import (
    MOST_BYTES,
    PRUNES,
    REMOVALS,
    Podman,
    bound_storage,
    is_mount_point,
    reason_without_engine,
    remove_containers,
)


def write_program(folder: Path, name: str, script: str = "") -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_the_reason_of_a_skip_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(engine, "NETWORK_DIRECTORIES", (tmp_path,))
    account, mounted = 0, True
    monkeypatch.setattr(engine, "is_mount_point", lambda path: mounted)
    monkeypatch.setattr("os.geteuid", lambda: account)
    for name in ("podman", "runc", "netavark"):
        write_program(tmp_path, name)
    assert "apt-get install catatonit mmdebstrap iptables aardvark-dns (" in str(reason_without_engine())
    for name in ("catatonit", "mmdebstrap", "iptables", "aardvark-dns"):
        write_program(tmp_path, name)
    assert reason_without_engine() is None
    account = 1000
    assert "only root" in str(reason_without_engine())
    mounted = False
    assert "chroot" in str(reason_without_engine())


def test_the_root_of_a_chroot_is_no_mount_point(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("26 27 0:24 / /proc rw,relatime - proc proc rw\n")
    assert not is_mount_point("/", mounts)
    assert is_mount_point("/proc", mounts)
    mounts.write_text("27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n")
    assert is_mount_point("/", mounts)


@pytest.mark.parametrize("prunes", range(len(PRUNES) + 1))
def test_the_oldest_layers_go_until_the_rest_is_below_the_bound(prunes: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    write_program(tmp_path, "podman", f'echo "$*" >>{log}')
    sizes = iter([MOST_BYTES + 1] * prunes + [MOST_BYTES])
    bound_storage(Podman({"PATH": str(tmp_path)}), lambda: next(sizes))
    assert log.read_text().splitlines() == [" ".join(("image prune --force", *words)) for words in PRUNES[:prunes]]


@pytest.mark.parametrize("failures", [0, REMOVALS - 1, REMOVALS])
def test_containers_that_depend_on_each_other_are_removed_in_passes(failures: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for name in ("rm", "grep"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    script = f'echo "$1" >>{log}\n[ "$1" != rm ] || [ $(grep -c ^rm {log}) -gt {failures} ]'
    write_program(tmp_path, "podman", script)
    podman = Podman({"PATH": str(tmp_path)})
    if failures == REMOVALS:
        with pytest.raises(RuntimeError, match="podman rm --all"):
            remove_containers(podman)
        assert log.read_text().splitlines() == ["rm"] * REMOVALS
    else:
        remove_containers(podman)
        assert log.read_text().splitlines() == ["rm"] * (failures + 1) + ["volume", "network"]
