"""Episodes with chapters made by people."""

import gzip
import json
from pathlib import Path

import pytest

from models.chapters.engine import read_episodes
from models.training.storage import ReadReport
from services.errors import InvalidInput

LONG = "word " * 60
EPISODE = {
    "id": "e1",
    "title": "Farms",
    "description": "All about farms",
    "utterances": [
        {"start": 1.5, "speaker": "Ann", "text": "Hello  there."},
        {"start": 3.0, "speaker": "Ann", "text": "Today: soil."},
        {"start": None, "speaker": "Bob", "text": " "},
        {"start": 4.0, "speaker": "Bob", "text": LONG},
        {"start": 9.0, "speaker": None, "text": "And rain."},
    ],
    "chapters": [{"start_utterance": 1, "title": "Soil"}, {"start_utterance": 4, "title": "Rain"}],
}


def written(path: Path, *records: object) -> Path:
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode()))
    return path


def test_an_episode_is_read(tmp_path: Path) -> None:
    (one,) = read_episodes(written(tmp_path / "e.jsonl.gz", EPISODE))
    text, segments = one.episode.text, one.episode.segments
    assert text == f"Hello there. Today: soil.\n{LONG.strip()}\nAnd rain."
    assert list(segments.offsets) == [0, 13, 26, text.index("And")]
    assert segments.speaker_at(0) == "Ann"
    assert segments.speaker_at(len(text) - 1) is None
    assert segments.second_at(text.index("And")) == 9.0
    # Two words before the first chapter belong to the first chapter.
    assert [(c.start, c.title) for c in one.chapters] == [(0, "Soil"), (text.index("And"), "Rain")]


def test_long_text_before_the_first_chapter_is_a_chapter_without_title(tmp_path: Path) -> None:
    (one,) = read_episodes(written(tmp_path / "e.jsonl.gz", EPISODE | {"chapters": EPISODE["chapters"][1:]}))  # type: ignore[index]
    assert [c.title for c in one.chapters] == ["", "Rain"]


def test_half_of_all_episodes_are_held_out_by_their_ids(tmp_path: Path) -> None:
    read = list(read_episodes(written(tmp_path / "e.jsonl.gz", *(EPISODE | {"id": f"e{i}"} for i in range(200)))))
    assert 70 < sum(one.held_out for one in read) < 130


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"id": None}, "missing_member"),
        ({"utterances": "text"}, "wrong_type"),
        ({"utterances": [{"text": " "}]}, "empty_transcript"),
        ({"chapters": []}, "bad_chapters"),
        ({"chapters": [{"start_utterance": 5, "title": "x"}]}, "bad_chapters"),
        ({"chapters": [{"start_utterance": True, "title": "x"}]}, "bad_chapters"),
        ({"chapters": [{"start_utterance": 0, "title": ""}]}, "empty_text"),
        ({"utterances": [{"text": "x", "start": -1}]}, "bad_time"),
        ({"utterances": [{"text": "x", "start": float("nan")}]}, "not_json"),
    ],
)
def test_a_bad_line_is_counted_and_skipped(tmp_path: Path, changes: dict[str, object], code: str) -> None:
    report = ReadReport("e")
    found = list(read_episodes(written(tmp_path / "e.jsonl.gz", EPISODE | changes, EPISODE), report))
    assert [one.id for one in found] == ["e1"]
    assert report.refused == {code: 1}


def test_a_file_without_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        list(read_episodes(written(tmp_path / "e.jsonl.gz", {"id": "x"})))
    assert refused.value.code == "no_episodes"
