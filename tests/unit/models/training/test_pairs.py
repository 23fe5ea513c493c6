"""Pair sets, splits without shared texts, and pair files in which a bad line costs one line."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training import storage
from models.training.pairs import (
    Pair,
    PairSet,
    join_pair_sets,
    pair_set_name,
    read_pairs,
    split_pairs,
    write_pairs,
)
from models.training.storage import ReadReport
from services.errors import ConfigurationError, InvalidInput

letters = st.text("abcdef", min_size=1, max_size=2)
pair_lists = st.lists(st.builds(Pair, letters, letters.map(lambda text: f"p{text}"), st.sampled_from(["x", "y"])))


@given(pair_lists)
def test_distinct_pairs_become_links_and_distinct_texts_appear_once(pairs: list[Pair]) -> None:
    found = PairSet.of(pairs)
    distinct = {(pair.query, pair.passage) for pair in pairs}
    links = [found.pair(link) for link in range(len(found))]
    assert {(pair.query, pair.passage) for pair in links} == distinct
    assert len(links) == len(distinct)
    assert found.repeated == len(pairs) - len(distinct)
    assert sorted(found.queries) == sorted({pair.query for pair in pairs})
    assert sorted(found.passages) == sorted({pair.passage for pair in pairs})
    assert found.query_rows.dtype == found.passage_rows.dtype == found.origin_rows.dtype == np.int32


def test_texts_that_differ_only_in_white_space_are_one() -> None:
    found = PairSet.of([Pair("a  b", "c\nd"), Pair("a b", "c d"), Pair("a b", "A\tb"), Pair("same", "same ")])
    assert found.queries == ["a  b"]
    assert found.passages == ["c\nd", "A\tb"]
    assert (found.repeated, found.identical) == (1, 1)


def test_counts_by_origin() -> None:
    found = PairSet.of([Pair("a", "p", "x"), Pair("b", "p", "y"), Pair("c", "p", "x")])
    assert found.counts() == {"x": 2, "y": 1}


def test_taking_links_keeps_only_their_texts() -> None:
    found = PairSet.of([Pair("a", "p", "x"), Pair("b", "q", "y"), Pair("c", "p", "x")]).take(np.array([2, 1]))
    assert [found.pair(link) for link in range(2)] == [Pair("c", "p", "x"), Pair("b", "q", "y")]
    assert sorted(found.queries) == ["b", "c"]
    none = found.take(np.zeros(2, dtype=bool))
    assert (len(none), none.queries, none.passages) == (0, [], [])


def test_joined_sets_share_texts() -> None:
    joined = join_pair_sets([PairSet.of([Pair("a", "p", "x")]), PairSet.of([Pair("b", "p", "y"), Pair("a", "p", "y")])])
    assert joined.passages == ["p"]
    assert joined.counts() == {"x": 1, "y": 1}
    assert joined.repeated == 1


def test_the_fingerprint_depends_on_texts_links_and_origins() -> None:
    pairs = [Pair("a", "p", "x"), Pair("b", "q", "x")]
    first = PairSet.of(pairs).fingerprint
    assert PairSet.of(pairs).fingerprint == first
    changed = [
        pairs[::-1],
        [*pairs, Pair("a", "q", "x")],
        [pairs[0], Pair("b", "q", "y")],
        [pairs[0], Pair("b", "r", "x")],
    ]
    assert len({first, *(PairSet.of(other).fingerprint for other in changed)}) == 5


def random_pairs(seed: int, count: int = 400, queries: int = 600, passages: int = 600) -> PairSet:
    rng = np.random.default_rng(seed)
    return PairSet.of(
        Pair(f"q{query}", f"p{passage}", "x")
        for query, passage in zip(rng.integers(0, queries, count), rng.integers(0, passages, count), strict=True)
    )


@given(st.integers(0, 50), st.floats(0.02, 0.5))
def test_no_text_is_on_both_sides(seed: int, share: float) -> None:
    pairs = random_pairs(seed)
    parts = split_pairs(pairs, share, seed)
    assert not set(parts.train.queries) & set(parts.held_out.queries)
    assert not set(parts.train.passages) & set(parts.held_out.passages)
    assert len(parts.train) + len(parts.held_out) == len(pairs)
    assert 0 < len(parts.held_out) <= max(1, round(share * len(pairs)))


def test_a_split_depends_on_its_seed_only() -> None:
    pairs = random_pairs(1)
    first, again, other = (split_pairs(pairs, 0.1, seed).held_out for seed in (3, 3, 4))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert len(split_pairs(pairs, 0.4, 3, most=7).held_out) <= 7


def test_a_giant_family_stays_in_training() -> None:
    giant = [Pair("introduction", f"section {number}") for number in range(90)]
    small = [Pair(f"title {number}", f"text {number}") for number in range(10)]
    parts = split_pairs(PairSet.of(giant + small), 0.1, 0)
    assert "introduction" in parts.train.queries
    assert len(parts.held_out) == 10


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_must_be_between_0_and_1(share: float) -> None:
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        split_pairs(random_pairs(0), share, 0)


@pytest.mark.parametrize("pairs", [[], [Pair("a", "p")], [Pair("a", "p"), Pair("a", "q"), Pair("b", "q")]])
def test_pairs_that_cannot_be_split_are_refused(pairs: list[Pair]) -> None:
    with pytest.raises(InvalidInput, match="cannot be split"):
        split_pairs(PairSet.of(pairs), 0.5, 0)


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


def test_a_line_that_is_too_long_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAX_LINE_BYTES", 200)
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'{"query": "a", "passage": "' + b"x" * 500 + b'"}\n' + GOOD)
    report = ReadReport(str(path))
    assert len(list(read_pairs(path, report))) == 1
    assert report.refused == {"line_too_long": 1}


def test_a_file_without_valid_lines_reports_the_first_errors(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'{"q": "a"}\n' * 20)
    with pytest.raises(InvalidInput, match="line 1: it has no `query`") as caught:
        list(read_pairs(path))
    assert caught.value.code == "no_pairs"


def test_an_empty_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.touch()
    with pytest.raises(InvalidInput, match="empty"):
        list(read_pairs(path))


def test_a_missing_file_and_a_truncated_archive(tmp_path: Path) -> None:
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


def test_surrounding_white_space_and_byte_order_mark_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"query": " a ", "passage": "\\tb\\n"}\r\n')
    assert list(read_pairs(path)) == [Pair("a", "b", "set")]


@pytest.mark.parametrize("name", ["made.jsonl", "made.jsonl.gz"])
def test_written_pairs_are_read_again(tmp_path: Path, name: str) -> None:
    pairs = [Pair("how", "so\nand so", "title"), Pair("wie", "so", "made")]
    assert write_pairs(tmp_path / name, pairs) == 2
    assert list(read_pairs(tmp_path / name)) == pairs
    first = (tmp_path / name).read_bytes()
    write_pairs(tmp_path / name, pairs)
    assert (tmp_path / name).read_bytes() == first


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
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
    report = ReadReport(str(path))
    pairs = PairSet.of(read_pairs(path, report))
    assert pairs.counts() == {"wiki": 1}
    assert pairs.repeated == 1
    assert report.as_json()["refused"] == {"missing_member": 1}


def test_names_of_sets() -> None:
    assert pair_set_name(Path("a/wiki.v2.jsonl.gz")) == "wiki.v2"
    assert pair_set_name(Path("wiki.jsonl")) == "wiki"
    assert pair_set_name(Path("wiki")) == "wiki"
