"""Tests of the provenance of figures."""

from pathlib import Path

from cli.relevance.provenance import collect_provenance


def test_provenance_names_no_person_and_no_path() -> None:
    found = collect_provenance(("sparsewell", "no-such-package"))
    assert set(found) == {"made_at", "commit", "machine", "versions"}
    assert set(found["versions"]) == {"python", "sparsewell"}
    assert str(Path.home()) not in str(found)
