"""Chapter formats of players, and round trips of a stored talk."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from webvtt import WebVTT

from services.documents.document import Document, parse_document
from services.errors import InvalidInput
from services.index_spec import IndexSpec
from services.opensearch.stored_document import build_talk_members, read_talk_members
from services.talk.chapters import format_podcasting, format_webvtt, format_youtube
from services.talk.model import Chapter

SPEC = IndexSpec.model_validate({"talk": {}})
CHAPTERS = [
    Chapter("Begin & <end>", 0, 10, 0.0, 61.5),
    Chapter("Middle", 10, 20, 61.5, 3723.25),
    Chapter("Last", 20, 30, 3723.25, None),
]


def test_podcasting_chapters() -> None:
    assert format_podcasting(CHAPTERS, "T", "https://a/b.mp3") == {
        "version": "1.2.0",
        "title": "T",
        "fileName": "https://a/b.mp3",
        "chapters": [
            {"startTime": 0.0, "title": "Begin & <end>", "endTime": 61.5},
            {"startTime": 61.5, "title": "Middle", "endTime": 3723.25},
            {"startTime": 3723.25, "title": "Last"},
        ],
    }


def test_a_webvtt_track() -> None:
    track = format_webvtt(CHAPTERS)
    assert "Begin &amp; &lt;end&gt;" in track
    assert [(cue.start, cue.end) for cue in WebVTT.from_string(track, strict=True)] == [
        ("00:00:00.000", "00:01:01.500"),
        ("00:01:01.500", "01:02:03.250"),
        ("01:02:03.250", "01:02:04.250"),
    ]


def test_lines_for_youtube_begin_at_zero() -> None:
    late = [Chapter("First", 0, 10, 12.0, 61.5), *CHAPTERS[1:]]
    assert format_youtube(late) == "0:00 First\n1:01 Middle\n1:02:03 Last\n"
    assert format_youtube(CHAPTERS).startswith("0:00 Begin & ‹end›\n")


@pytest.mark.parametrize(
    ("chapters", "why"),
    [
        (CHAPTERS[:2], "there are 2"),
        ([*CHAPTERS[:2], Chapter("Short", 20, 30, 3723.25, 3730.0)], "'Short' at 1:02:03 is shorter"),
        ([CHAPTERS[0], Chapter("Brief", 10, 12, 61.5, 70.0), Chapter("Last", 12, 30, 70.0, None)], "'Brief' at 1:01"),
    ],
)
def test_chapters_that_youtube_ignores_are_refused(chapters: list[Chapter], why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as refused:
        format_youtube(chapters)
    assert refused.value.code == "not_for_youtube"


@pytest.mark.parametrize("form", [format_webvtt, format_youtube, lambda one: format_podcasting(one, "", "")])
def test_chapters_without_times_are_refused(form: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        form([Chapter("A", 0, 5), Chapter("B", 5, 9)])
    assert refused.value.code == "chapters_untimed"


def again(document: Document) -> Document:
    """Return a talk after it was stored, exported and sent again."""
    assert document.talk is not None
    source = {"text": document.text} | build_talk_members(document.talk)
    sent = orjson.loads(orjson.dumps(read_talk_members(source)))
    return parse_document({"id": document.id} | sent, SPEC)


words = st.text(st.sampled_from("abc. é你。"), max_size=12)
segment = st.fixed_dictionaries(
    {"text": st.one_of(words, words.map(lambda text: f"{text}\n"))},
    optional={
        "start": st.floats(0, 1000),
        "end": st.floats(0, 1000),
        "speaker": st.sampled_from(["A", "B"]),
    },
)
chapter = st.fixed_dictionaries(
    {"title": words, "startTime": st.floats(0, 1000)},
    optional={"segment": st.integers(0, 3), "endTime": st.floats(0, 9)},
)


@given(
    st.lists(segment, min_size=4, max_size=12),
    st.lists(chapter, max_size=6),
    st.one_of(st.none(), st.floats(1, 500)),
)
def test_a_stored_talk_survives_a_round_trip(
    segments: list[dict[str, Any]], chapters: list[dict[str, Any]], duration: float | None
) -> None:
    sent = {"id": "t", "kind": "talk", "segments": segments, "chapters": chapters, "duration": duration}
    try:
        first = parse_document(sent, SPEC)
    except InvalidInput:
        return
    second = again(first)
    assert second.text == first.text
    assert first.talk is not None
    assert second.talk is not None
    assert second.talk.segments.pack() == first.talk.segments.pack()
    assert second.talk.producer_chapters == first.talk.producer_chapters
    assert second.talk.duration == first.talk.duration


@pytest.mark.parametrize("text", ["Anna: Hi.\nBob: Yo.\nAnna: Bye.", "One.\n\nTwo\nlines.", "so and " * 900])
def test_a_text_survives_a_round_trip_through_its_segments(text: str) -> None:
    first = parse_document({"id": "t", "kind": "talk", "text": text, "url": "https://a", "description": "D"}, SPEC)
    second = again(first)
    assert second.text == first.text
    assert first.talk is not None
    assert second.talk is not None
    assert second.talk.segments.pack() == first.talk.segments.pack()
    assert (second.talk.url, second.talk.description) == ("https://a", "D")
