"""`sparsewell encoders list|show|verify` on complete and broken directories."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.main import main
from tests.unit.services.encoders.model_directories import Copy, restate

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs `sparsewell encoders …` and returns exit status, stdout and stderr."""
    monkeypatch.delenv("SPARSEWELL_ENCODER", raising=False)
    monkeypatch.delenv("SPARSEWELL_MORE_ENCODERS", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["sparsewell", "encoders", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


def test_list_shows_usable_and_broken_encoders(copy: Copy, command: Command, tmp_path: Path) -> None:
    mine = copy("standin", "folder/mine")
    (mine / "query_weights.json").write_text('{"the": 1.0}')
    fingerprint = restate(mine)
    (tmp_path / "folder" / "broken").mkdir()
    (tmp_path / "folder" / "broken" / "manifest.json").write_text("no")
    status, out, _ = command("list", str(tmp_path / "folder"))
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        "name", "projected-minilm-l6", "standin", "standin", "broken:", "Several",
    ]  # fmt: skip
    assert "382, overlap 48" in out
    status, out, _ = command("list", str(mine), "--json")
    rows = {row["where"]: row for row in json.loads(out)}
    assert rows[str(mine)]["fingerprint"] == fingerprint
    assert rows[str(mine)]["origin"] == "given"
    assert {row["licence"] for row in rows.values()} == {"Apache-2.0"}


def test_show_prints_the_manifest_and_the_ends_of_the_table(command: Command) -> None:
    status, out, _ = command("show", "projected-minilm-l6", "-n", "3")
    assert status == 0
    for part in (
        "licence: Apache-2.0",
        "BertForProjectedExpansion",
        "model.onnx  35.4 MB",
        "heaviest: ",
        ". 0.01, the 0.03",
    ):
        assert part in out
    status, out, _ = command("show", "5b595bd2fa3121b3", "--json", "-n", "2")
    answer = json.loads(out)
    assert answer["manifest"]["name"] == "projected-minilm-l6"
    assert [piece for piece, _ in answer["query_table"]["lightest"]] == [".", "the"]
    assert answer["missing_files"] == []


def test_show_weighs_a_text_and_a_query(command: Command) -> None:
    status, out, _ = command("show", "standin", "--weigh", "tree tree of", "--query", "tree", "--json")
    assert status == 0
    answer = json.loads(out)
    assert [piece for piece, _ in answer["document"]] == ["tree", "of", "trees"]
    ((piece, weight),) = answer["query"]
    assert piece == "tree"
    assert answer["score"] == pytest.approx(weight * answer["document"][0][1])
    status, out, _ = command("show", "standin", "--query", "")
    assert (status, out) == (0, "query: 0 weighted pieces\n")


def test_verify_accepts_the_shipped_encoders(command: Command) -> None:
    status, out, err = command("verify", "--all")
    assert (status, err) == (0, "")
    assert out.count(": complete; the query table weighs 96.7% of the vocabulary") == 2


def change(**members: object) -> Callable[[Path], None]:
    return lambda directory: (restate(directory, **members), None)[1]


def write(name: str, content: bytes, *, listed: bool) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        (directory / name).write_bytes(content)
        if listed:
            restate(directory)

    return spoil


BROKEN = {
    "pickle": ("standin", write("extra.bin", pickle.dumps(1), listed=False), "refused_file", "pickle"),
    "hidden pickle": ("standin", write("notes", pickle.dumps(1), listed=False), "refused_file", "pickle"),
    "code": ("standin", write("modeling.py", b"", listed=False), "refused_file", "code"),
    "changed": ("standin", write("tokenizer.json", b"{}", listed=False), "corrupt_model_file", "tokenizer.json"),
    "missing": ("standin", lambda d: (d / "tokenizer.json").unlink(), "missing_model_file", "tokenizer.json"),
    "manifest": ("standin", write("manifest.json", b"{not json", listed=False), "bad_manifest", "JSON"),
    "tokeniser": ("standin", write("tokenizer.json", b"{}", listed=True), "bad_tokenizer", "tokenizer.json"),
    "table": ("standin", write("query_weights.json", b'{"Qq": 1}', listed=True), "bad_query_table", "different"),
    "few": ("standin", write("query_weights.json", b'{"the": 1}', listed=True), "bad_query_table", "0.0%"),
    "model": ("projected-minilm-l6", write("model.onnx", b"no model", listed=True), "bad_model", "loaded"),
    "top_k": ("projected-minilm-l6", change(top_k=128), "bad_model", "350 weights"),
    "vocabulary": ("projected-minilm-l6", change(vocabulary=30_600), "bad_dense_table", "30,600"),
    "length": ("projected-minilm-l6", change(max_pieces=513), "bad_model", "513 pieces"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_verify_reports_each_fault_on_one_line(copy: Copy, command: Command, case: str) -> None:
    shipped, spoil, code, said = BROKEN[case]
    mine = copy(shipped, "mine")
    spoil(mine)
    status, out, err = command("verify", str(mine))
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith(str(mine))
    assert line.endswith(f"[{code}]")
    assert said in line


def test_verify_continues_after_a_broken_encoder(copy: Copy, command: Command, tmp_path: Path) -> None:
    good, bad = copy("standin", "folder/good"), copy("standin", "folder/bad")
    (bad / "tokenizer.json").unlink()
    (bad / "query_weights.json").write_text("{}")
    status, out, err = command("verify", str(tmp_path / "folder"), "nothing")
    assert status == 1
    assert out.startswith(f"{good}: complete")
    assert [line.rpartition("[")[2] for line in err.splitlines()] == [
        "corrupt_model_file]", "missing_model_file]", "unknown_encoder]",
    ]  # fmt: skip
    status, out, _ = command("verify", str(good), str(bad), "--json")
    assert [len(one["problems"]) for one in json.loads(out)] == [0, 2]
    assert status == 1


def test_a_folder_without_encoders_is_not_searched(command: Command, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("")
    status, _, err = command("verify", str(tmp_path))
    assert status == 1
    assert err.count("\n") == 1
    assert "[bad_manifest]" in err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["verify"], "names_or_all"),
        (["verify", "standin", "--all"], "names_or_all"),
        (["list", "/no/such/place"], "unknown_encoder"),
        (["show", "nothing"], "unknown_encoder"),
        (["show", "n" * 5000], "unknown_encoder"),
        (["show", "~nobody-here/x"], "unknown_encoder"),
        (["verify", "~nobody-here/x"], "unknown_encoder"),
        (["show", "standin", "--query", "\udcff"], "not_utf8"),
        (["show", "standin", "--query", "\udcff", "--field", "pieces"], "not_utf8"),
        (["show", "standin", "--field", "pieces"], "no_query"),
        (["show", "standin", "--query", "word " * 1001], "query_too_long"),
    ],
)
def test_errors_are_one_line_with_a_code(command: Command, arguments: list[str], code: str) -> None:
    status, out, err = command(*arguments)
    assert (status, out) == (1, "")
    assert err.endswith(f"[{code}]\n")
    assert err.count("\n") == 1


def test_encoders_with_the_same_name_are_ambiguous(
    copy: Copy, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = copy("standin", "mine")
    (mine / "query_weights.json").write_text('{"the": 1.0}')
    fingerprint = restate(mine)
    monkeypatch.setenv("SPARSEWELL_MORE_ENCODERS", str(mine))
    status, _, err = command("show", "standin")
    assert status == 1
    assert "[ambiguous_encoder]" in err
    assert fingerprint in err
    assert command("show", fingerprint)[0] == 0
