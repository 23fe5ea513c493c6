"""Lookup in the mount table, and the resulting data directory."""

from pathlib import Path

import pytest

from infra.opensearch.node import MEMORY_DIRECTORY, has_mount_entry, resolve_data_directory

MACHINE = "/dev/vda / ext4 rw 0 0\nproc /proc proc rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n"
CHROOT = "proc /proc proc rw 0 0\ndevtmpfs /dev devtmpfs rw 0 0\n/dev/vda /with\\040space ext4 rw 0 0\n"


def device(path: Path) -> int:
    """Return the device number of a path, on a machine with three file systems."""
    parts = path.parts[1:2]
    return {"dev": 2, "with space": 3}.get(parts[0] if parts else "", 1)


@pytest.mark.parametrize(
    ("table", "path", "found"),
    [
        (MACHINE, "/usr/bin", True),
        (MACHINE, "/usr/not/there/yet", True),
        (CHROOT, "/usr/bin", False),
        (CHROOT, "/", False),
        (CHROOT, "/dev/null", True),
        (CHROOT, "/dev/not-there-yet/data", True),
    ],
)
def test_the_mount_point_above_the_path_is_looked_up(table: str, path: str, found: bool) -> None:
    assert has_mount_entry(Path(path), table, device) is found


def test_the_table_escapes_spaces(tmp_path: Path) -> None:
    top = tmp_path / "with space"
    (top / "data").mkdir(parents=True)
    table = f"/dev/vda {str(top).replace(' ', chr(92) + '040')} ext4 rw 0 0"
    assert has_mount_entry(top / "data", table, lambda path: int(path.is_relative_to(top)))


def mount_points(*directories: Path) -> str:
    return "".join(f"/dev/vda {directory} ext4 rw 0 0\n" for directory in directories)


def test_an_ordinary_machine_keeps_the_configured_directory(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text(mount_points(tmp_path, *tmp_path.parents))
    assert resolve_data_directory(tmp_path / "data", table) == tmp_path / "data"


def test_a_chroot_without_mount_entry_keeps_data_in_memory(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text(mount_points(Path("/proc")))
    assert resolve_data_directory(tmp_path, table) == MEMORY_DIRECTORY / tmp_path.relative_to("/")


def test_a_system_without_a_mount_table_keeps_the_configured_directory(tmp_path: Path) -> None:
    assert resolve_data_directory(tmp_path, tmp_path / "missing") == tmp_path
