"""Parsing of talks: every transcript format, repairs and refusals."""

import random
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.documents.document import Document, parse_document, parse_document_bytes
from services.errors import InvalidInput
from services.index_spec import DocumentLimits, IndexSpec
from services.talk.model import UNKNOWN_TIME

SPEC = IndexSpec.model_validate({"talk": {}})
VTT = """WEBVTT - an episode

NOTE made by hand

1
00:00.500 --> 00:04.000 align:start position:0%
<v Anna>Good <i>morning</i> &amp; welcome.</v>

00:04.000 --> 00:06.000
<v.loud Bob B.>Thank you.
"""
SRT = """1
00:00:00,500 --> 00:00:04,000
{\\an8}Good <b>morning</b>.

2
00:00:04,000 --> 00:00:06,000
Thank
you.
"""
PODCASTING = {
    "version": "1.0.0",
    "segments": [
        {"speaker": "Anna", "startTime": 0.5, "endTime": 4, "body": "Good morning."},
        {"speaker": "Bob", "startTime": 4, "endTime": 6, "body": "Thank you."},
    ],
}


def talk(**members: Any) -> Document:
    return parse_document({"id": "t", "kind": "talk", **members}, SPEC)


def spoken(document: Document) -> list[tuple[str, int, int, str | None]]:
    """Return each segment as (text, start, end, speaker)."""
    assert document.talk is not None
    segments = document.talk.segments
    ends = [*segments.offsets[1:], len(document.text)]
    return [
        (
            document.text[offset : ends[i]],
            segments.starts[i],
            segments.ends[i],
            segments.speaker_at(offset),
        )
        for i, offset in enumerate(segments.offsets)
    ]


def repairs(document: Document) -> dict[str, int]:
    assert document.talk is not None
    return {repair.code: repair.count for repair in document.talk.repairs}


def test_webvtt_has_voices_and_times() -> None:
    document = talk(transcript={"type": "text/vtt; charset=utf-8", "text": VTT})
    assert spoken(document) == [
        ("Good morning & welcome.\n", 500, 4000, "Anna"),
        ("Thank you.", 4000, 6000, "Bob B."),
    ]
    assert repairs(document) == {}


@pytest.mark.parametrize("kind", ["application/x-subrip", "application/srt", "text/srt"])
def test_subrip(kind: str) -> None:
    document = talk(transcript={"type": kind, "text": "\ufeff\r\n" + SRT.replace("\n", "\r\n")})
    assert spoken(document) == [("Good morning. ", 500, 4000, None), ("Thank you.", 4000, 6000, None)]


@pytest.mark.parametrize("content", [PODCASTING, orjson.dumps(PODCASTING).decode()])
def test_a_podcasting_transcript(content: Any) -> None:
    document = talk(transcript={"type": "application/json", "text": content})
    assert spoken(document) == [("Good morning.\n", 500, 4000, "Anna"), ("Thank you.", 4000, 6000, "Bob")]


def test_several_voices_of_a_cue_share_its_time() -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v A>four\n<v B>five\n"
    assert spoken(talk(transcript={"type": "text/vtt", "text": text})) == [
        ("four\n", 1000, 1500, "A"),
        ("five", 1500, 2000, "B"),
    ]


def test_a_cue_without_a_voice_continues_the_previous_one() -> None:
    cues = ["(music)", "<v A>one", "two", "<v B>three", "four"]
    text = "WEBVTT\n\n" + "\n\n".join(f"00:0{i}.000 --> 00:0{i + 1}.000\n{cue}" for i, cue in enumerate(cues))
    said = spoken(talk(transcript={"type": "text/vtt", "text": text}))
    assert [speaker for *_, speaker in said] == [None, "A", "A", "B", "B"]


def test_json_of_speech_recognisers_is_read() -> None:
    whisper = {"text": " Hi. So.", "language": "en", "segments": [
        {"id": 0, "seek": 0, "start": 0.0, "end": 1.5, "text": " Hi.", "tokens": [1]},
        {"id": 1, "seek": 0, "start": 1.5, "end": 3.0, "text": " So.", "tokens": [2]},
    ]}  # fmt: skip
    document = talk(transcript={"type": "application/json", "text": whisper})
    assert spoken(document) == [("Hi. ", 0, 1500, None), ("So.", 1500, 3000, None)]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + VTT, SRT, SRT.replace("\n", "\r\n"), SRT.removeprefix("1\n"),
        orjson.dumps(PODCASTING).decode(), "\n<!DOCTYPE html><p>x", "<html><p>x</p>", '<?xml version="1.0"?><tt/>',
    ],
)  # fmt: skip
@pytest.mark.parametrize("member", ["text", "transcript"])
def test_other_formats_are_not_indexed_as_plain_text(member: str, text: str) -> None:
    sent = {"text": text} if member == "text" else {"transcript": {"type": "text/plain", "text": text}}
    with pytest.raises(InvalidInput, match="not plain text") as caught:
        talk(**sent)
    assert caught.value.code == "bad_transcript"


@pytest.mark.parametrize("text", ["[Music] Hi.", "WEBVTT is a format.", "1\n2\n3", "<b>Hi</b>", "{x} --> y", "12:30"])
def test_text_that_resembles_another_format_is_plain_text(text: str) -> None:
    assert talk(text=text).text.split() == text.split()


def test_recurring_names_before_the_words_are_speakers() -> None:
    cues = ["Anna: Hi.", "And more.", "Bob: Yes: no.", "Anna: So.", "Bob: Bye."]
    text = "WEBVTT\n\n" + "\n\n".join(f"00:0{i}.000 --> 00:0{i + 1}.000\n{cue}" for i, cue in enumerate(cues))
    said = spoken(talk(transcript={"type": "text/vtt", "text": text}))
    assert [(text.strip(), speaker) for text, _, _, speaker in said] == [
        ("Hi.", "Anna"), ("And more.", "Anna"), ("Yes: no.", "Bob"), ("So.", "Anna"), ("Bye.", "Bob"),
    ]  # fmt: skip


@pytest.mark.parametrize(("one", "two"), [("דוד: ", "רנה: "), ("田中：", "山田："), ("رنا: ", "علي: ")])
def test_names_of_every_script_are_recognised(one: str, two: str) -> None:
    cues = [f"{one}Aa.", f"{two}Bb.", f"{one}Cc.", f"{two}Dd."]
    text = "WEBVTT\n\n" + "\n\n".join(f"00:0{i}.000 --> 00:0{i + 1}.000\n{cue}" for i, cue in enumerate(cues))
    said = spoken(talk(transcript={"type": "text/vtt", "text": text}))
    assert [speaker for *_, speaker in said] == [one[:-1].rstrip(":"), two[:-1].rstrip(":")] * 2


def test_comparisons_of_numbers_are_not_tags() -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:02.000\n1 <2 & 3> 2 <00:01.500><c>then</c>\n"
    assert talk(transcript={"type": "text/vtt", "text": text}).text == "1 <2 & 3> 2 then"


def test_words_before_a_colon_are_not_speakers_unless_they_recur() -> None:
    document = talk(text="Note: this is it.\nRemember: that.\nWe go on.\nAnd on.\nAnd on again.")
    assert document.text.startswith("Note: this is it.\nRemember: that.")
    assert {speaker for *_, speaker in spoken(document)} == {None}


def test_plain_text_has_a_segment_per_paragraph() -> None:
    document = talk(text="One line\nof two.\n\n  Another.\r\n\r\n\r\nThe last.")
    assert [text for text, *_ in spoken(document)] == ["One line of two.\n", "Another.\n", "The last."]
    assert talk(transcript={"type": "text/plain", "text": "One.\nTwo."}).text == "One.\nTwo."


def test_plain_text_with_names() -> None:
    said = spoken(talk(text="Anna: Hi.\n\nBob Jones: Yes.\nGo on.\n\nAnna: So.\nBob Jones: Bye.\nAnna: Bye."))
    assert [(text.strip(), speaker) for text, _, _, speaker in said][:3] == [
        ("Hi.", "Anna"), ("Yes.", "Bob Jones"), ("Go on.", "Bob Jones"),
    ]  # fmt: skip


def test_a_pause_or_another_speaker_begins_a_line() -> None:
    document = talk(
        segments=[
            {"start": 0, "end": 1, "text": "One", "speaker": "A"},
            {"start": 1.5, "end": 2, "text": "two.", "speaker": "A"},
            {"start": 5, "end": 6, "text": "Three.", "speaker": "A"},
            {"start": 6, "end": 7, "text": "Four.\n", "speaker": "B"},
            {"start": 7, "end": 8, "text": "五。", "speaker": "B"},
            {"start": 8, "end": 9, "text": "六。", "speaker": "B"},
        ]
    )
    assert document.text == "One two.\nThree.\nFour.\n五。六。"


def test_segments_are_sorted_and_their_times_reconciled() -> None:
    document = talk(
        segments=[
            {"start": 4, "end": 9, "text": "b"},
            {"start": 1, "end": 5, "text": "a"},
            {"start": 6, "end": 2, "text": "c"},
            {"start": 8, "text": "d"},
            {"text": " "},
            {"end": 9, "text": "e"},
        ],
        duration=7.5,
    )
    assert spoken(document) == [
        ("a ", 1000, 4000, None),
        ("b ", 4000, 6000, None),
        ("c ", 6000, 8000, None),
        ("d ", 8000, 8000, None),
        ("e", UNKNOWN_TIME, UNKNOWN_TIME, None),
    ]
    assert repairs(document) == {
        "empty_segments": 1,
        "unordered_segments": 1,
        "end_before_start": 1,
        "missing_ends": 1,
        "ends_without_start": 1,
        "overlapping_segments": 2,
        "beyond_duration": 2,
    }
    assert document.talk is not None
    assert document.talk.duration == 8.0


def test_rolling_captions_are_read_once() -> None:
    lines = [f"line {i}" for i in range(8)]
    cues = [f"00:0{i}.000 --> 00:0{i + 1}.000\n{lines[i]}\n{lines[i + 1]}" for i in range(7)]
    document = talk(transcript={"type": "text/vtt", "text": "WEBVTT\n\n" + "\n\n".join(cues)})
    assert document.text.split() == " ".join(lines).split()
    assert repairs(document) == {"repeated_captions": 6}


def test_repeated_speech_is_kept() -> None:
    cues = [f"00:0{i}.000 --> 00:0{i + 1}.000\n{word}" for i, word in enumerate([*"nnabcdef"])]
    assert talk(transcript={"type": "text/vtt", "text": "WEBVTT\n\n" + "\n\n".join(cues)}).text == "n n a b c d e f"


def test_unreadable_cues_are_counted() -> None:
    text = VTT + "\n00:99.000 --> 01:00.000\nlost\n\n00:07.000 --> later\nlost\n"
    assert repairs(talk(transcript={"type": "text/vtt", "text": text})) == {"unread_cues": 2}


def test_ten_hours_without_a_full_stop_are_split() -> None:
    text = " ".join(random.Random(1).choice(["so", "and", "then"]) for _ in range(90_000))
    document = talk(segments=[{"start": 0, "end": 36_000, "text": text}])
    assert document.text == text
    said = spoken(document)
    assert all(len(one[0]) <= 601 for one in said)
    assert all(later[1] == earlier[2] for earlier, later in pairwise(said))
    assert said[-1][2] == 36_000_000
    assert repairs(document) == {"long_segments": 1}


def test_an_endless_word_is_one_segment() -> None:
    assert talk(text="x" * 5000).text == "x" * 5000


def test_two_languages_are_one_transcript() -> None:
    document = talk(segments=[{"text": "Guten Tag."}, {"text": "你好。"}, {"text": "再见。"}, {"text": "Bye."}])
    assert document.text == "Guten Tag. 你好。再见。 Bye."


BAD: list[tuple[str, dict[str, Any]]] = [
    ("missing_text", {}),
    ("empty_transcript", {"text": " \n"}),
    ("empty_transcript", {"segments": []}),
    ("empty_transcript", {"segments": [{"text": " "}]}),
    ("empty_transcript", {"transcript": {"type": "text/vtt", "text": "\ufeff \n"}}),
    ("empty_transcript", {"transcript": {"type": "text/vtt", "text": "WEBVTT\n"}}),
    ("several_transcripts", {"text": "a", "segments": [{"text": "a"}]}),
    ("bad_text", {"text": 5}),
    ("unknown_transcript_type", {"transcript": {"type": "audio/mpeg", "text": "x"}}),
    ("bad_transcript", {"transcript": "x"}),
    ("bad_transcript", {"transcript": {"type": "text/vtt"}}),
    ("bad_transcript", {"transcript": {"type": "text/vtt", "text": SRT}}),
    ("bad_transcript", {"transcript": {"type": "text/vtt", "text": ["x"]}}),
    ("bad_transcript", {"transcript": {"type": "text/vtt", "text": "WEBVTT\n\nx --> y\nlost\n"}}),
    ("bad_transcript", {"transcript": {"type": "application/srt", "text": VTT}}),
    ("bad_transcript", {"transcript": {"type": "application/json", "text": "{"}}),
    ("bad_transcript", {"transcript": {"type": "application/json", "text": "[]"}}),
    ("bad_transcript", {"transcript": {"type": "application/json", "text": {"segments": 5}}}),
    ("bad_segments", {"transcript": {"type": "application/json", "text": {"segments": [{"words": "x"}]}}}),
    ("bad_segments", {"segments": {}}),
    ("bad_segments", {"segments": ["x"]}),
    ("bad_segments", {"segments": [{"text": "x", "speakr": "A"}]}),
    ("bad_segments", {"segments": [{"text": "x", "speaker": 5}]}),
    ("bad_segments", {"segments": [{"text": "x", "speaker": "A" * 201}]}),
    ("bad_time", {"segments": [{"text": "x", "start": float("nan")}]}),
    ("bad_time", {"segments": [{"text": "x", "start": -1}]}),
    ("bad_time", {"segments": [{"text": "x", "start": "5"}]}),
    ("bad_time", {"segments": [{"text": "x", "start": True}]}),
    ("bad_time", {"segments": [{"text": "x", "end": 10**400}]}),
    ("bad_time", {"transcript": {"type": "text/vtt", "text": "WEBVTT\n\n999999:00:00.000 --> 999999:00:01.000\nx\n"}}),
    ("bad_time", {"text": "x", "duration": 0}),
    ("bad_time", {"text": "x", "duration": "long"}),
    ("bad_description", {"text": "x", "description": 5}),
    ("bad_url", {"text": "x", "url": "javascript:alert(1)"}),
    ("bad_url", {"text": "x", "url": "https://a b"}),
    ("bad_url", {"text": "x", "url": 5}),
    ("unknown_field", {"text": "x", "author": "A"}),
    ("too_many_segments", {"segments": [{"text": "x"}] * 100_001}),
    ("too_many_segments", {"transcript": {"type": "text/vtt", "text": "WEBVTT\n" + "-->\n" * 100_001}}),
    ("too_many_speakers", {"segments": [{"text": "x", "speaker": f"S{i}"} for i in range(1001)]}),
]


@pytest.mark.parametrize(("code", "members"), BAD)
def test_invalid_talks_are_refused_with_their_code(code: str, members: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        talk(**members)
    assert refused.value.code == code
    assert refused.value.extra["id"] == "t"


def test_an_index_without_talk_refuses_talks() -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_document({"id": "t", "kind": "talk", "text": "x"}, IndexSpec())
    assert refused.value.code == "talk_not_declared"
    with pytest.raises(InvalidInput) as refused:
        parse_document({"id": "t", "kind": "film", "text": "x"}, SPEC)
    assert refused.value.code == "bad_kind"


def test_an_index_of_talks_refuses_other_documents() -> None:
    assert parse_document({"id": "d", "text": "A: b"}, SPEC) == Document("d", "A: b")
    with pytest.raises(InvalidInput, match="Unknown field 'url'"):
        parse_document({"id": "d", "text": "x", "url": "https://a"}, SPEC)


def test_talks_have_separate_limits() -> None:
    limits = DocumentLimits(100, 300)
    segments = [{"start": i, "text": f"w{i}"} for i in range(8)]
    line = orjson.dumps({"id": "t", "kind": "talk", "segments": segments})
    assert 100 < len(line) <= 300
    assert parse_document_bytes(line, SPEC, limits).talk is not None
    for bad, code in (
        ({"id": "d", "text": "x" * 150}, "document_too_large"),
        ({"id": "t", "kind": "talk", "text": "x" * 150}, "transcript_too_large"),
        ({"id": "t", "kind": "talk", "text": "x" * 60, "description": "y" * 60}, "transcript_too_large"),
        ({"id": "t", "kind": "talk", "text": "x" * 350}, "document_too_large"),
    ):
        with pytest.raises(InvalidInput) as refused:
            parse_document_bytes(orjson.dumps(bad), SPEC, limits)
        assert refused.value.code == code


hostile = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from("<>-:.,0123456789\n\n\n v/&;")), max_size=60
).map(lambda text: text.replace(">>", "-->"))


@given(st.sampled_from(["text/vtt", "application/srt", "application/json", "text/plain"]), hostile)
def test_any_transcript_is_read_or_refused(kind: str, content: str) -> None:
    head = {"text/vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\n", "application/srt": "1\n00:00:01,000 --> 00:00:02,000\n"}
    try:
        document = talk(transcript={"type": kind, "text": head.get(kind, "") + content})
    except InvalidInput:
        return
    assert document.text.strip()


def test_a_long_speaker_name_is_cut() -> None:
    document = talk(transcript={"type": "text/vtt", "text": f"WEBVTT\n\n00:01.000 --> 00:02.000\n<v {'A' * 300}>Hi."})
    assert spoken(document) == [("Hi.", 1000, 2000, "A" * 200)]
    assert repairs(document) == {"long_names": 1}


words = st.text(st.sampled_from("ab. \n\x00é你。"), max_size=20)
second = st.one_of(st.none(), st.floats(0, 1000), st.just("1:02:03.5"))
segment = st.fixed_dictionaries(
    {"text": words}, optional={"start": second, "end": second, "speaker": st.sampled_from(["A", "B", "", None])}
)


@given(st.lists(segment, max_size=30), st.one_of(st.none(), st.floats(1, 500)))
def test_accepted_transcripts_satisfy_segment_invariants(sent: list[dict[str, Any]], duration: float | None) -> None:
    try:
        document = talk(segments=sent, duration=duration)
    except InvalidInput as error:
        assert error.code == "empty_transcript"
        return
    assert document.talk is not None
    one = document.talk.segments
    assert one.offsets[0] == 0
    assert all(earlier < later for earlier, later in zip(one.offsets, one.offsets[1:], strict=False))
    assert one.offsets[-1] < len(document.text)
    for column in (one.starts, one.ends):
        known = [time for time in column if time != UNKNOWN_TIME]
        assert known == sorted(known)
    assert sorted("".join(document.text.split())) == sorted("".join("".join(s["text"].split()) for s in sent))
