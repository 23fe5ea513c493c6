"""Locked packages against advisories: what is found, what is not, and what was accepted for a reason."""

from pathlib import Path

import pytest
from packaging.version import Version

from infra import advisories
from infra.advisories import LOCKS, accepted, affected, findings, pinned

ADVISORY = """
id: PYSEC-2024-1
aliases: [CVE-2024-1]
summary: {summary}
{more}
affected:
- package: {{ecosystem: PyPI, name: {name}}}
  ranges:
  - type: GIT
    events: [{{introduced: "0"}}, {{fixed: "33ccdfb0"}}]
  - type: ECOSYSTEM
    events: [{{introduced: "1.0"}}, {{fixed: "1.4"}}, {{introduced: "2.0"}}, {{fixed: "2.3"}}]
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    folder = tmp_path / "db" / "vulns" / "some-package"
    folder.mkdir(parents=True)
    text = ADVISORY.format(summary="It opens a door.", more="", name="Some_Package")
    (folder / "PYSEC-2024-1.yaml").write_text(text)
    withdrawn = ADVISORY.format(summary="No.", more="withdrawn: 2024-02-02T00:00:00Z", name="some-package")
    (folder / "PYSEC-2024-2.yaml").write_text(withdrawn.replace("PYSEC-2024-1", "PYSEC-2024-2"))
    return tmp_path / "db"


def test_lock_files_are_read() -> None:
    lock = (LOCKS / "dev.txt").read_text()
    found = pinned(lock)
    assert len(found) > 100
    assert "fastapi" in {name for name, _ in found}
    assert pinned("Some.Package[extra]==2.1 \\\n    --hash=sha256:00\nother>=1\n") == {("some-package", "2.1")}


def test_each_version_of_a_package_is_read() -> None:
    lock = "a==1.2 ; python_full_version < '3.12' \\\n    --hash=sha256:00\na==2.0 ; python_full_version >= '3.12'\n"
    assert pinned(lock) == {("a", "1.2"), ("a", "2.0")}


@pytest.mark.parametrize(
    ("version", "hit"), [("0.9", 0), ("1.0", 1), ("1.4", 0), ("2.0rc1", 0), ("2.2.9", 1), ("3", 0)]
)
def test_versions_within_a_range_are_found(database: Path, version: str, hit: int) -> None:
    found = list(findings({("some-package", version), ("another", "1.0")}, database))
    assert [one.advisory for one in found] == ["PYSEC-2024-1"] * hit
    if hit:
        assert found[0].fixed == ("1.4", "2.3")
        assert found[0].summary == "It opens a door."


def test_listed_versions_and_last_affected_ones_count() -> None:
    assert affected(Version("1.0.0"), {"versions": ["not a version", "1.0"]})
    last = {"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"last_affected": "2.0"}]}]}
    assert [affected(Version(one), last) for one in ("1", "2.0", "2.1")] == [True, True, False]
    alone = {"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "2"}, {"last_affected": "2"}, {"limit": "*"}]}]}
    assert [affected(Version(one), alone) for one in ("1", "2.0", "2.1")] == [False, True, False]


@pytest.mark.parametrize(("version", "hit"), [("1.3", True), ("1.4", False), ("2.2", True), ("2.3", False)])
def test_events_stand_in_any_order(version: str, hit: bool) -> None:
    events = [{"introduced": "2.0"}, {"fixed": "2.3"}, {"fixed": "1.4"}, {"introduced": "0"}]
    assert affected(Version(version), {"ranges": [{"type": "ECOSYSTEM", "events": events}]}) is hit


def run(database: Path, lock: str, accept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "dev.txt").write_text(lock)
    (tmp_path / "locks" / "accepted-advisories.toml").write_text(accept)
    monkeypatch.setattr(advisories, "LOCKS", tmp_path / "locks")
    monkeypatch.setattr(advisories, "ACCEPTED", tmp_path / "locks" / "accepted-advisories.toml")
    return advisories.main([str(database)])


@pytest.mark.parametrize(
    ("version", "accept", "status"),
    [
        ("2.3", "", 0),
        ("2.2", "", 1),
        ("2.2\nsome-package==2.3", "", 1),  # one for older Pythons, and one for newer
        ("2.2", '["PYSEC-2024-1"]\nreason = "that door is not built in"', 0),
        ("2.3", '["PYSEC-2024-1"]\nreason = "of no use any more"', 1),
    ],
)
def test_the_command(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, accept: str, status: int
) -> None:
    assert run(database, f"some-package=={version}", accept, tmp_path, monkeypatch) == status


def test_a_folder_that_is_no_database_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "a==1", "", tmp_path, monkeypatch) == 2
    assert "no copy of pypa/advisory-database" in capsys.readouterr().err


def test_an_acceptance_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="PYSEC-1 has no reason"):
        accepted('["PYSEC-1"]\n')
