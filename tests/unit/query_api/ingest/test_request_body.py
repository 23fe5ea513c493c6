"""The lines of a body do not depend on the chunks of the stream."""

import tracemalloc
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from query_api.ingest.request_body import LineSplitter


def cut(chunks: list[bytes], limit: int = 50) -> list[tuple[int, bytes | None]]:
    cutter = LineSplitter(limit)
    return [line for chunk in chunks for line in cutter.feed(chunk)] + cutter.finish()


@given(st.binary(max_size=200).map(lambda raw: raw.replace(b"\x07", b"\n")), st.lists(st.integers(0, 200)))
def test_chunking_changes_nothing(raw: bytes, places: list[int]) -> None:
    marks = [0, *sorted(place for place in places if place <= len(raw)), len(raw)]
    chunks = [raw[a:b] for a, b in pairwise(marks)]
    assert cut(chunks) == cut([raw])


def test_lines_are_numbered_with_the_empty_ones() -> None:
    assert cut([b"a\n\n \nb\r\nc"]) == [(1, b"a"), (4, b"b\r"), (5, b"c")]


def test_a_line_over_the_limit_is_reported_and_not_kept() -> None:
    cutter = LineSplitter(10)
    tracemalloc.start()
    for _ in range(1000):
        assert cutter.feed(b"x" * 1000) == []
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000
    assert cutter.feed(b"\nshort\n") == [(1, None), (2, b"short")]


def test_a_last_line_over_the_limit_is_reported() -> None:
    assert cut([b"x" * 51]) == [(1, None)]
