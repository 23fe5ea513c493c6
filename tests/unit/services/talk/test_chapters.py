"""Producer chapters: titles and times are kept, placed in the text and repaired."""

from typing import Any

import pytest

from services.documents.document import parse_document
from services.errors import InvalidInput
from services.index_spec import IndexSpec
from services.talk.model import Talk

SPEC = IndexSpec.model_validate({"talk": {}})
SEGMENTS = [{"start": 10 * i, "end": 10 * i + 9, "text": f"w{i}"} for i in range(10)]  # 3 characters each


def talk(chapters: Any, **members: Any) -> Talk:
    sent = {"id": "t", "kind": "talk", "chapters": chapters} | ({"segments": SEGMENTS} | members)
    if "text" in members:
        del sent["segments"]
    found = parse_document(sent, SPEC).talk
    assert found is not None
    return found


def rows(one: Talk) -> list[tuple[str, int, int, float | None, float | None]]:
    return [(c.title, c.start, c.end, c.start_time, c.end_time) for c in one.producer_chapters or ()]


def repairs(one: Talk) -> dict[str, int]:
    return {repair.code: repair.count for repair in one.repairs}


@pytest.mark.parametrize("wrapped", [True, False])
def test_chapters_keep_their_seconds_and_begin_with_the_nearest_segment(wrapped: bool) -> None:
    chapters = [{"startTime": 0, "title": "A"}, {"startTime": 38.5, "title": "B"}, {"startTime": "1:10", "title": "C"}]
    one = talk({"version": "1.2.0", "chapters": chapters} if wrapped else chapters)
    assert rows(one) == [("A", 0, 12, 0.0, 38.5), ("B", 12, 21, 38.5, 70.0), ("C", 21, 29, 70.0, 99.0)]
    assert repairs(one) == {}


def test_ends_within_the_chapter_are_kept() -> None:
    one = talk([{"startTime": 0, "endTime": 25, "title": "A"}, {"startTime": 30, "endTime": 20, "title": "B"}])
    assert [chapter[4] for chapter in rows(one)] == [25.0, 99.0]
    assert repairs(one) == {"chapter_ends": 1}


def test_a_recording_may_continue_after_the_last_word() -> None:
    chapters = [{"startTime": 0, "endTime": 31, "title": "A"}, {"startTime": 30, "endTime": 120, "title": "B"}]
    assert [chapter[4] for chapter in rows(talk(chapters))] == [30.0, 120.0]
    assert repairs(talk(chapters)) == {"chapter_ends": 1}
    assert [chapter[4] for chapter in rows(talk(chapters, duration=110))] == [30.0, 110.0]
    assert repairs(talk(chapters, duration=110)) == {"chapter_ends": 2}


def test_the_segment_wins_over_a_contradicting_time() -> None:
    one = talk(
        [{"segment": 1, "startTime": 80, "endTime": 85, "title": "A"}, {"segment": 5, "startTime": 46, "title": "B"}]
    )
    assert rows(one) == [("A", 3, 15, 10.0, 46.0), ("B", 15, 29, 46.0, 99.0)]  # 46 is within the tolerance
    assert repairs(one) == {"chapter_times": 1}


def test_a_chapter_may_begin_within_a_long_segment() -> None:
    long = {"start": 0, "end": 3600, "text": "word " * 3000}
    one = talk(
        [{"segment": 0, "startTime": 1800, "title": "A"}, {"segment": 1, "title": "B"}],
        segments=[long, {"start": 3600, "text": "end"}],
    )
    assert rows(one)[0][1] == pytest.approx(7500, abs=600)
    assert [row[3] for row in rows(one)] == [1800.0, 3600.0]
    assert repairs(one).keys() == {"long_segments", "missing_ends"}


def test_segment_numbers_count_the_sent_segments() -> None:
    segments = [{"text": " "}, {"text": "b", "start": 5}, {"text": "a", "start": 1}, {"text": "c", "start": 9}]
    one = talk([{"segment": 0, "title": "A"}, {"segment": 3, "title": "C", "startTime": 8.5}], segments=segments)
    # Segment 0 is omitted, so its chapter begins with the next segment in the request.
    assert rows(one) == [("A", 2, 4, 5.0, 8.5), ("C", 4, 5, 8.5, 9.0)]


def test_contradictory_chapters_are_repaired() -> None:
    one = talk(
        [
            {"startTime": 50, "title": "B"},
            {"startTime": 20, "title": " "},
            {"startTime": 51, "title": "same segment"},
            {"startTime": 5000, "title": "after the end"},
            {"startTime": 30, "title": "hidden", "toc": False},
            {"startTime": 80, "title": "C\n\x00c", "img": "https://i", "url": "https://u"},
        ]
    )
    assert rows(one) == [
        ("Chapter 1", 6, 15, 20.0, 50.0),
        ("B", 15, 24, 50.0, 80.0),
        ("C c", 24, 29, 80.0, 99.0),
    ]
    assert repairs(one) == {
        "hidden_chapters": 1,
        "chapter_members_left_out": 2,
        "untitled_chapters": 1,
        "unordered_chapters": 1,
        "chapters_beyond_end": 1,
        "chapters_without_text": 1,
    }


@pytest.mark.parametrize("none", [None, [], {"version": "1.2.0", "chapters": []}, [{"startTime": 500, "title": "A"}]])
def test_chapters_outside_the_talk_count_as_none(none: Any) -> None:
    assert talk(none).producer_chapters is None


def test_a_long_title_is_cut() -> None:
    one = talk([{"startTime": 0, "title": "x" * 1001}])
    assert rows(one)[0][0] == "x" * 1000
    assert repairs(one) == {"long_titles": 1}


def test_times_without_a_timed_transcript_are_shares_of_the_duration() -> None:
    text = "\n".join(f"w{i}" for i in range(10))
    one = talk([{"startTime": 0, "title": "A"}, {"startTime": 50, "title": "B"}], text=text, duration=100)
    assert rows(one) == [("A", 0, 15, 0.0, 50.0), ("B", 15, 29, 50.0, 100.0)]
    assert repairs(one) == {"chapters_by_share": 2}
    assert rows(talk([{"segment": 0, "title": "A"}, {"segment": 5, "title": "B"}], text=text)) == [
        ("A", 0, 15, None, None),
        ("B", 15, 29, None, None),
    ]


@pytest.mark.parametrize(
    ("code", "chapters", "members"),
    [
        ("bad_chapters", "x", {}),
        ("bad_chapters", {"version": "1.2.0"}, {}),
        ("bad_chapters", ["x"], {}),
        ("bad_chapters", [{"title": "A"}], {}),
        ("bad_chapters", [{"startTime": 0, "title": 5}], {}),
        ("bad_chapters", [{"startTime": 0, "title": "A", "toc": "no"}], {}),
        ("bad_chapters", [{"segment": 10, "title": "A"}], {}),
        ("bad_chapters", [{"segment": True, "title": "A"}], {}),
        ("bad_time", [{"startTime": -1, "title": "A"}], {}),
        ("bad_time", [{"startTime": float("nan"), "title": "A"}], {}),
        ("bad_time", [{"startTime": "one", "title": "A"}], {}),
        ("chapters_without_times", [{"startTime": 0, "title": "A"}], {"text": "a b"}),
        ("too_many_chapters", [{"startTime": 0, "title": "A"}] * 1001, {}),
    ],
)
def test_invalid_chapters_are_refused(code: str, chapters: Any, members: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        talk(chapters, **members)
    assert refused.value.code == code


def test_a_chapter_that_takes_its_segments_second_does_not_begin_after_the_next_one() -> None:
    segments = [{"text": "a", "start": 0}, {"text": "b", "start": 30.123}, {"text": "c", "start": 60}]
    one = talk(
        [{"title": "A", "startTime": 40, "segment": 1}, {"title": "B", "startTime": 30, "segment": 2}],
        segments=segments,
    )
    starts = [chapter[3] for chapter in rows(one)]
    assert starts == sorted(starts)
    assert all(start <= end for _, _, _, start, end in rows(one))
