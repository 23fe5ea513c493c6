"""The OpenSearch distribution: pinned checksums, Java releases, and modules of the 2.x line."""

import hashlib
import io
import re
import zipfile
from pathlib import Path

import pytest

from infra.local_servers import LocalSettings
from infra.opensearch.distribution import (
    PINNED_ZIPS,
    PLUGIN_MODULES,
    Distribution,
    minimum_java_release,
    newest_java_release,
    render_descriptor,
    unpack_distribution,
)
from services.errors import ConfigurationError
from services.maven import Artifact


def test_the_default_release_is_pinned() -> None:
    assert f"opensearch-{LocalSettings.model_fields['opensearch_version'].default}" in PINNED_ZIPS
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in PINNED_ZIPS.values())


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """Return a directory to unpack into, and the SHA-256 of the zip that Maven copies."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        script = zipfile.ZipInfo("opensearch-9.9.9/bin/opensearch")
        script.external_attr = 0o755 << 16
        archive.writestr(script, "#!/bin/sh\n")

    def copy(artifact: Artifact, directory: Path, *, without: str) -> Path:
        assert without
        file = directory / f"{artifact.artifact}-{artifact.version}.zip"
        file.write_bytes(content.getvalue())
        return file

    monkeypatch.setattr("services.maven.copy_artifact", copy)
    target = tmp_path / "target"
    target.mkdir()
    return target, hashlib.sha256(content.getvalue()).hexdigest()


def test_a_zip_with_its_checksum_is_unpacked_with_its_modes(fetched: tuple[Path, str]) -> None:
    directory, sha256 = fetched
    unpack_distribution(Artifact("group", "opensearch", "9.9.9", "zip"), directory, sha256)
    assert (directory / "opensearch-9.9.9/bin/opensearch").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in directory.parent.iterdir()] == ["target"], "the zip does not stay"


@pytest.mark.parametrize(
    ("version", "sha256", "code"),
    [("3.6.0", "", "checksum_mismatch"), ("9.9.9", "0" * 64, "checksum_mismatch"), ("9.9.9", "", "unpinned_release")],
)
def test_another_zip_is_not_unpacked(fetched: tuple[Path, str], version: str, sha256: str, code: str) -> None:
    directory, _ = fetched
    with pytest.raises(ConfigurationError) as caught:
        unpack_distribution(Artifact("group", "opensearch", version, "zip"), directory, sha256)
    assert caught.value.code == code
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(("version", "java"), [("3.6.0", 21), ("2.19.4", 11), ("10.0.0", 21)])
def test_oldest_java_of_a_release(version: str, java: int) -> None:
    assert minimum_java_release(version) == java


def test_the_2_x_line_needs_a_java_with_the_security_manager() -> None:
    assert (newest_java_release("2.19.4"), newest_java_release("3.6.0")) == (23, None)
    assert Distribution("2.19.4", security=True).name == "opensearch-2.19.4-security"


def test_descriptors_of_added_modules_name_what_they_extend() -> None:
    lines = render_descriptor("analysis-common", PLUGIN_MODULES["analysis-common"], "2.19.4").splitlines()
    assert {"name=analysis-common", "opensearch.version=2.19.4", "extended.plugins=lang-painless"} <= set(lines)
    assert set(PLUGIN_MODULES) == set(Distribution("2.19.4").modules)
