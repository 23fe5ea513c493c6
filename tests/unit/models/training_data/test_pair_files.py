"""Pair files: what is read, what is refused and where, and that one bad line costs one line."""

import gzip
from pathlib import Path

import pytest

from models.training import storage
from models.training.pairs import Pair, pair_set_name, read_pair_set, read_pairs, write_pairs
from models.training.storage import ReadReport
from services.errors import ConfigurationError, InvalidInput

GOOD = b'{"query": "what is lift", "passage": "a force at right angles to the flow"}\n'

BAD = {
    b"\xff\xfe\n": "not_utf8",
    b'{"query": "a"\n': "not_json",
    b'{"query": NaN, "passage": "b"}\n': "not_json",
    b'{"query": "\\ud800", "passage": "b"}\n': "not_json",
    b'["a", "b"]\n': "not_an_object",
    b'{"query": "a"}\n': "missing_member",
    b'{"query": null, "passage": "b"}\n': "missing_member",
    b'{"query": 7, "passage": "b"}\n': "wrong_type",
    b'{"query": ["a"], "passage": "b"}\n': "wrong_type",
    b'{"query": "a", "passage": " \\n "}\n': "empty_text",
}


@pytest.mark.parametrize(("line", "code"), BAD.items())
def test_a_bad_line_is_counted_by_its_code_and_skipped(tmp_path: Path, line: bytes, code: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(GOOD + b"\n" + line + GOOD.replace(b"lift", b"drag"))
    report = ReadReport(str(path))
    assert [pair.query for pair in read_pairs(path, report)] == ["what is lift", "what is drag"]
    assert report.refused == {code: 1}
    assert (report.lines, report.taken) == (3, 2)
    assert report.examples[0].startswith(f"{path}, line 3: ")


def test_a_line_that_is_too_long_is_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAX_LINE_BYTES", 200)
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'{"query": "a", "passage": "' + b"x" * 500 + b'"}\n' + GOOD)
    report = ReadReport(str(path))
    assert len(list(read_pairs(path, report))) == 1
    assert report.refused == {"line_too_long": 1}


def test_a_file_without_a_good_line_says_what_is_wrong_with_the_first(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'{"q": "a"}\n' * 20)
    with pytest.raises(InvalidInput, match="line 1: it has no `query`") as caught:
        list(read_pairs(path))
    assert caught.value.code == "no_pairs"


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.touch()
    with pytest.raises(InvalidInput, match="empty"):
        list(read_pairs(path))


def test_a_missing_file_and_a_cut_archive(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        list(read_pairs(tmp_path / "none.jsonl"))
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD * 1000)[:-20])
    with pytest.raises(InvalidInput) as caught:
        list(read_pairs(path))
    assert caught.value.code == "damaged_file"


def test_pairs_are_read_as_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(GOOD * 10)
    report = ReadReport(str(path))
    next(read_pairs(path, report))
    assert report.lines == 1


def test_white_space_around_texts_goes_and_a_mark_at_the_beginning_too(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"query": " a ", "passage": "\\tb\\n"}\r\n')
    assert list(read_pairs(path)) == [Pair("a", "b", "set")]


@pytest.mark.parametrize("name", ["made.jsonl", "made.jsonl.gz"])
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    pairs = [Pair("how", "so\nand so", "title"), Pair("wie", "so", "made")]
    assert write_pairs(tmp_path / name, pairs) == 2
    assert list(read_pairs(tmp_path / name)) == pairs
    first = (tmp_path / name).read_bytes()
    write_pairs(tmp_path / name, pairs)
    assert (tmp_path / name).read_bytes() == first


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "made.jsonl"
    write_pairs(path, [Pair("a", "b")])

    def failing() -> object:
        yield Pair("c", "d")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_pairs(path, failing())  # type: ignore[arg-type]
    assert [pair.query for pair in read_pairs(path)] == ["a"]
    assert [one.name for one in tmp_path.iterdir()] == ["made.jsonl"]


def test_a_whole_file_and_its_report(tmp_path: Path) -> None:
    path = tmp_path / "wiki.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD + GOOD + b"{}\n"))
    pairs, report = read_pair_set(path)
    assert pairs.counts() == {"wiki": 1}
    assert pairs.repeated == 1
    assert report.as_json()["refused"] == {"missing_member": 1}


def test_names_of_sets() -> None:
    assert pair_set_name(Path("a/wiki.v2.jsonl.gz")) == "wiki.v2"
    assert pair_set_name(Path("wiki.jsonl")) == "wiki"
    assert pair_set_name(Path("wiki")) == "wiki"
