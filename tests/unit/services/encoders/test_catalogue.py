"""The catalogue of encoders, and the resolution of names to encoders."""

from pathlib import Path

import orjson
import pytest

from services.encoders.catalogue import find_encoder, find_model_directories, list_named_encoders, load_known_encoders
from services.encoders.manifest import WEIGHTS_ROOT, read_manifest, resolve_model_directory
from services.errors import ConfigurationError
from services.settings import Settings
from tests.unit.services.encoders.model_directories import Copy, restate


def code_of(call) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigurationError) as caught:
        call()
    return caught.value.code


def test_each_directory_is_listed_once_and_the_configured_one_first(copy: Copy) -> None:
    mine = copy("standin", "mine")
    settings = Settings(encoder="standin", more_encoders=f" {mine} , standin,")
    found = list_named_encoders(settings, [str(mine)])
    assert [(one.origin, one.directory) for one in found] == [
        ("configured", WEIGHTS_ROOT / "standin"),
        ("given", mine),
        *(("shipped", path) for path in sorted(WEIGHTS_ROOT.iterdir()) if path.name != "standin"),
    ]


def test_a_broken_encoder_is_listed_but_fails_loading(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    settings = Settings(more_encoders=f"{tmp_path / 'broken'},{tmp_path / 'gone'}")
    errors = [one.encoder for one in list_named_encoders(settings) if isinstance(one.encoder, ConfigurationError)]
    assert [error.code for error in errors] == ["bad_manifest", "unknown_encoder"]
    assert code_of(lambda: load_known_encoders(settings)) == "bad_manifest"


def test_an_encoder_is_found_by_name_fingerprint_directory_and_path(copy: Copy) -> None:
    mine = copy("standin", "mine")
    fingerprint = restate(mine, name="ours")
    (mine / "tokenizer.json").write_text((mine / "tokenizer.json").read_text() + "\n")
    fingerprint = restate(mine)
    named = list_named_encoders(Settings(more_encoders=str(mine)))
    for name in ("ours", "mine", fingerprint, str(mine)):
        assert find_encoder(named, name).manifest.fingerprint == fingerprint
    assert code_of(lambda: find_encoder(named, "neither")) == "unknown_encoder"


def test_an_ambiguous_name_is_refused(copy: Copy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = copy("standin", "standin")
    named = list_named_encoders(Settings(more_encoders=str(mine)))
    assert find_encoder(named, "standin").manifest.name == "standin", "the same encoder in two places is no question"
    monkeypatch.chdir(tmp_path)
    assert resolve_model_directory("standin") == WEIGHTS_ROOT / "standin"

    (mine / "tokenizer.json").write_text((mine / "tokenizer.json").read_text() + "\n")
    other = restate(mine)
    named = list_named_encoders(Settings(more_encoders=str(mine)))
    assert code_of(lambda: find_encoder(named, "standin")) == "ambiguous_encoder"
    assert find_encoder(named, other).manifest.fingerprint == other
    assert find_encoder(named, str(mine)).manifest.fingerprint == other
    assert code_of(lambda: resolve_model_directory("standin")) == "ambiguous_encoder"
    assert resolve_model_directory("./standin") == Path("standin")


def test_a_folder_expands_to_its_encoders(copy: Copy, tmp_path: Path) -> None:
    one, two = copy("standin", "one"), copy("standin", "two")
    (tmp_path / "three").mkdir()
    assert find_model_directories(tmp_path) == [one, two]
    copy("standin", ".two.part")  # the directory of a running or killed export
    assert find_model_directories(tmp_path) == [one, two]
    assert find_model_directories(one) == [one]
    assert find_model_directories(tmp_path / "three") == [tmp_path / "three"]
    assert code_of(lambda: find_model_directories(tmp_path / "gone")) == "unknown_encoder"


def test_an_unfinished_export_is_not_an_encoder(copy: Copy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped, part = copy("standin", "standin"), copy("standin", ".standin.part")
    restate(part, top_k=7)
    monkeypatch.setattr("services.encoders.manifest.WEIGHTS_ROOT", tmp_path)
    assert [one.directory for one in list_named_encoders(Settings(encoder="standin"))] == [shipped]
    with pytest.raises(ConfigurationError, match=r"shipped ones \(standin\)"):
        resolve_model_directory("nobody")


@pytest.mark.parametrize(("name", "refused"), [("x.load.3", True), ("x.load.y", False), ("x.load", False)])
def test_a_name_that_is_a_load_lane_of_another_encoder_is_refused(*, tmp_path: Path, name: str, refused: bool) -> None:
    manifest = orjson.loads((resolve_model_directory("standin") / "manifest.json").read_bytes())
    (tmp_path / "manifest.json").write_bytes(orjson.dumps(manifest | {"name": name}))
    if not refused:
        assert read_manifest(tmp_path).name == name
        return
    with pytest.raises(ConfigurationError, match="the name of a queue") as caught:
        read_manifest(tmp_path)
    assert caught.value.code == "bad_manifest"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"format": "sparsewell-encoder/1"}'],
    ids=["empty", "cut", "list", "not-utf8", "nested", "members"],
)
def test_an_invalid_manifest_is_reported_on_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_manifest(tmp_path)
    assert caught.value.code == "bad_manifest"
    assert len(caught.value.detail.splitlines()) == 1


@pytest.mark.parametrize("name", ["", "n" * 5000, "a\0b", "no/such/place", "~nobody-here/x"])
def test_an_invalid_path_is_unknown(name: str) -> None:
    assert code_of(lambda: resolve_model_directory(name)) == "unknown_encoder"
