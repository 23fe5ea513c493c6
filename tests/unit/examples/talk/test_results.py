"""The open talks, their questions, and the output of the demo."""

import io
import re

import pytest
from rich.console import Console

from cli.demo import TALK_FIELDS, read_talks, show_examples
from examples.service import TimedAnswer
from examples.talk.results import TalkQuestion, TalkQuestionRankings, first_of_each_talk, measure_modes, read_questions
from services.documents.document import parse_document
from services.index_spec import IndexSpec

SPEC = IndexSpec.model_validate({"fields": TALK_FIELDS, "talk": {}})
QUESTION = TalkQuestion("where do ropes lie", "boats", ("on the quay",))


def hit(talk: str, text: str) -> dict[str, object]:
    return {
        "id": talk,
        "title": "On [boats]",
        "passage": {"text": text, "start_time": 3725.5, "speaker": "Ada"},
        "chapter": {"title": "Ropes"},
        "highlight": {"excerpt": {"text": text}},
        "link": "https://example.org/boats.mp3#t=3725",
    }


def ranked(*hits: dict[str, object]) -> TalkQuestionRankings:
    return TalkQuestionRankings(
        QUESTION, {mode: TimedAnswer({"hits": list(hits)}, 2.0) for mode in ("lexical", "sparse", "hybrid")}
    )


def test_the_service_accepts_every_talk() -> None:
    talks = [parse_document(one, SPEC) for one in read_talks()]
    assert len(talks) == 6
    assert [one.id for one in talks if one.talk is not None and one.talk.producer_chapters] == ["syntax-236"]
    assert {repair.code for one in talks if one.talk is not None for repair in one.talk.repairs} == {"long_segments"}


def test_every_answer_is_said_once_in_its_talk() -> None:
    texts = {one["id"]: parse_document(one, SPEC).text for one in read_talks()}
    for question in read_questions():
        whole = " ".join(texts[question.talk].split())
        assert [whole.count(words) for words in question.said] == [1] * len(question.said), question.text


def test_an_answer_needs_the_words_and_the_right_talk() -> None:
    said = "A rope lies on\nthe quay."
    assert ranked(hit("bees", said), hit("boats", said)).rank("sparse") == 2
    assert ranked(hit("boats", "Nothing.")).rank("sparse") is None
    (row, *_) = measure_modes([ranked(hit("boats", said)), ranked(hit("boats", "Nothing.")), ranked()])
    assert (row.talk, row.first, row.within, row.median_ms) == (2, 1, 1, 2.0)
    assert [one.question.talk for one in first_of_each_talk([ranked(), ranked()])] == ["boats"]


@pytest.mark.parametrize(("text", "mark"), [("A rope lies on the quay.", r"\*"), ("Nothing.", " ")])
def test_an_example_shows_place_speaker_words_and_link(text: str, mark: str) -> None:
    console = Console(file=io.StringIO(), width=100, highlight=False, soft_wrap=True)
    show_examples(console, [ranked(hit("boats", text))])
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(rf"^  {mark} 1:02:05  On \[boats\] / Ropes$", shown, re.MULTILINE)
    assert f"Ada: ... {text} ..." in shown and "https://example.org/boats.mp3#t=3725" in shown
