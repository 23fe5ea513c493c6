"""Known vulnerabilities of the locked packages, by a local copy of the Python Packaging Advisory Database.

    git clone --depth 1 https://github.com/pypa/advisory-database
    python -m infra.advisories advisory-database

The database has one file in the OSV format (ossf.github.io/osv-schema) an advisory, under vulns/PACKAGE. Each lock file
in requirements/ is read; an advisory that does not concern us stands in requirements/accepted-advisories.toml with the
reason. Exit status 1: something is vulnerable, or an acceptance is of no use any more.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

LOCKS = Path(__file__).parents[1] / "requirements"
ACCEPTED = LOCKS / "accepted-advisories.toml"
# Of one version the first one counts first.
_EVENTS = ("fixed", "introduced", "last_affected")
_PINNED = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?==(?P<version>[^\s;\\]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Finding:
    """A locked package that an advisory names; `fixed`: versions without the fault, empty where there is none."""

    package: str
    version: str
    advisory: str
    aliases: tuple[str, ...]
    fixed: tuple[str, ...]
    summary: str


def pinned(lock: str) -> set[tuple[str, str]]:
    """Names (canonical) and versions of a lock file, which may pin several of one name: one for each Python."""
    return {(canonicalize_name(found["name"]), found["version"]) for found in _PINNED.finditer(lock)}


def affected(version: Version, package: Mapping[str, Any]) -> bool:
    """Whether a version is among those that an advisory's entry for the package names."""
    if any(_same(version, one) for one in package.get("versions", ())):
        return True
    return any(_within(version, one.get("events", ())) for one in _ranges(package))


def _ranges(package: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Those of versions, not of commits."""
    return (one for one in package.get("ranges", ()) if one["type"] != "GIT")


def _same(version: Version, other: str) -> bool:
    try:
        return version == Version(str(other))
    except InvalidVersion:
        return False


def _within(version: Version, events: Sequence[Mapping[str, str]]) -> bool:
    """The events of a range by their versions, in whatever order they stand: `introduced` opens it, `fixed` closes it
    before, `last_affected` after.
    """
    inside = False
    told = [pair for event in events for pair in event.items() if pair[0] in _EVENTS]
    for at, order in sorted((Version(str(text)), _EVENTS.index(kind)) for kind, text in told):
        kind = _EVENTS[order]
        if kind == "introduced" and version >= at:
            inside = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            inside = False
    return inside


def findings(packages: Iterable[tuple[str, str]], database: Path) -> Iterator[Finding]:
    """Every advisory that names a package in its version. Raises FileNotFoundError for a folder without `vulns`."""
    vulns = database / "vulns"
    if not vulns.is_dir():
        raise FileNotFoundError(f"{database} holds no folder `vulns`: it is no copy of pypa/advisory-database.")
    for name, version in sorted(packages):
        for path in sorted((vulns / name).glob("*.yaml")):
            advisory = yaml.safe_load(path.read_text(encoding="utf-8"))
            if advisory.get("withdrawn"):
                continue
            own = [one for one in advisory["affected"] if canonicalize_name(one["package"]["name"]) == name]
            if any(affected(Version(version), one) for one in own):
                events = [event for one in own for each in _ranges(one) for event in each.get("events", ())]
                fixed = tuple(str(event["fixed"]) for event in events if "fixed" in event)
                told = str(advisory.get("summary") or advisory.get("details", "")).strip().splitlines()
                yield Finding(
                    name, version, advisory["id"], tuple(advisory.get("aliases", ())), fixed, told[0] if told else ""
                )


def accepted(text: str) -> dict[str, str]:
    """Advisories and the reasons for which they do not concern us. Raises ValueError for one without a reason."""
    found = {name: str(row.get("reason", "")).strip() for name, row in tomllib.loads(text).items()}
    if without := [name for name, reason in found.items() if not reason]:
        raise ValueError(f"{ACCEPTED.name}: {without[0]} has no reason")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m infra.advisories", description=__doc__)
    parser.add_argument("database", type=Path, help="a copy of pypa/advisory-database")
    given = parser.parse_args(arguments)
    packages: set[tuple[str, str]] = set()
    for lock in LOCKS.glob("*.txt"):
        packages |= pinned(lock.read_text(encoding="utf-8"))
    reasons = accepted(ACCEPTED.read_text(encoding="utf-8"))
    try:
        found = list(findings(packages, given.database))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    left = [one for one in found if one.advisory not in reasons]
    for one in left:
        cure = f"fixed in {', '.join(one.fixed)}" if one.fixed else "no fix is known"
        print(f"{one.package} {one.version}: {one.advisory} {' '.join(one.aliases)} ({cure})\n    {one.summary[:160]}")
    unused = sorted(reasons.keys() - {one.advisory for one in found})
    for name in unused:
        print(f"{name} is accepted in {ACCEPTED.name} and concerns nothing any more: take it out.")
    of_use = len(reasons) - len(unused)
    print(f"{len(packages)} versions of locked packages, {len(left)} advisories that concern them, {of_use} accepted")
    return 1 if left or unused else 0


if __name__ == "__main__":
    raise SystemExit(main())
