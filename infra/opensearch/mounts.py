"""Where a node can keep data: Java looks for the file system of a directory in the mount table and fails without it.

In a chroot whose root is no mount point (a root file system laid out in an ordinary directory), everything outside the
mounts in it is such a place: OpenSearch ends with "Mount point not found".
"""

from collections.abc import Callable
from pathlib import Path

MEMORY = Path("/dev/shm/sparsewell")  # noqa: S108 - a mount that every Linux has, in a chroot too


def has_mount_entry(
    path: Path, table: str, device_of: Callable[[Path], int] = lambda directory: directory.stat().st_dev
) -> bool:
    """Whether the mount point above `path` is named in `table` (the text of /proc/self/mounts), as Java looks it up."""
    here = path.resolve()
    while not here.exists():
        here = here.parent
    device = device_of(here)
    while here != here.parent and device_of(here.parent) == device:
        here = here.parent
    # Spaces and the like are written as octal escapes in the table.
    points = {line.split()[1].encode().decode("unicode_escape") for line in table.splitlines() if line.strip()}
    return str(here) in points


def place_for_data(wanted: Path, table: Path = Path("/proc/self/mounts")) -> Path:
    """Return `wanted`, or a directory in memory where Java cannot work with `wanted`. `table` lists the mounts."""
    if not table.exists() or has_mount_entry(wanted, table.read_text()):
        return wanted
    return MEMORY / wanted.relative_to("/")
