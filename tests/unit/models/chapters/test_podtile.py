"""The engine podtile: chunks, context, carried titles, time, and errors when a model cannot be opened."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from models.chapters.engine import ProposedChapter
from models.chapters.podtile import PodtileEngine, open_podtile
from models.chapters.podtile_checkpoint import (
    SHIPPED_DIRECTORY,
    STARTING_MODELS,
    read_chapter_manifest,
    resolve_generator_source,
)
from models.chapters.podtile_prompt import split_into_lines
from services.errors import ConfigurationError, Overloaded
from services.settings import Settings
from tests.unit.models.chapters.episodes import Written, talk

SENTENCES = [f"Sentence number {i} says something about farming and about what it takes to do it." for i in range(200)]


def marked(prompt: str, prefix: str) -> str:
    """Answer with a chapter at each line with the word `new`. The title is the word after `new`."""
    found = re.findall(r"\n\[(\d+)\][^\n]*?\bnew (\w+)", prompt)
    if prefix:
        return f" {found[0][1] if found and found[0][0] == '1' else 'Opening'}" + "".join(
            f" [{n}] {word}" for n, word in found if n != "1"
        )
    return "".join(f" [{n}] {word}" for n, word in found) or " none"


def with_chapters() -> list[str]:
    sentences = list(SENTENCES)
    for place, word in ((60, "soil"), (61, "rain"), (140, "harvest")):
        sentences[place] = (
            f"Now to something new {word} and so on, with as many words as are needed for a line of it." * 3
        )
    return sentences


def test_chapters_of_all_chunks_are_joined_without_repetition() -> None:
    episode = talk(with_chapters())
    generator = Written(marked)
    found = PodtileEngine(generator).propose(episode)
    assert [one.title for one in found] == ["Opening", "soil", "rain", "harvest"]
    assert found[0].start == 0
    assert all(one.start == episode.text.index(f"Now to something new {one.title}") for one in found[1:])
    assert len(generator.prompts) > 10


def test_each_prompt_has_the_earlier_titles_and_fits() -> None:
    generator = Written(marked)
    PodtileEngine(generator).propose(talk(with_chapters(), "Farms", "All about farms"))
    for prompt, _ in generator.prompts:
        assert prompt.startswith("Title: Farms\nAbout: All about farms\n")
        assert sum(generator.pieces([prompt])) <= generator.part_pieces - generator.answer_pieces
    assert "Chapters so far" not in generator.prompts[0][0]
    assert "Chapters so far: Opening; soil; rain; harvest\n" in generator.prompts[-1][0]
    assert generator.prompts[0][1] == " [1]"
    assert {prefix for _, prefix in generator.prompts[1:]} == {""}


def test_a_repeated_title_continues_the_chapter() -> None:
    generator = Written(lambda prompt, prefix: " Soil [4] Rain [5] soil" if prefix else " [2] Rain [4] Wool")
    found = PodtileEngine(generator).propose(talk(SENTENCES))
    assert [one.title for one in found] == ["Soil", "Rain", "Wool"]
    assert len(generator.prompts) > 2


@pytest.mark.parametrize("nonsense", ["", "none", "[", "[1] [2] [3]", "\x00", "[5] x " * 500, "[-1] x", "[1e9] y"])
def test_invalid_answers_still_give_proposals(nonsense: str) -> None:
    episode = talk(SENTENCES)
    found = PodtileEngine(Written(lambda prompt, prefix: nonsense)).propose(episode)
    assert found[0].start == 0
    assert {one.start for one in found} <= {line.start for line in split_into_lines(episode)}


def test_a_talk_without_words_sends_no_prompt() -> None:
    generator = Written(marked)
    assert PodtileEngine(generator).propose(talk([])) == []
    assert generator.prompts == []


def test_the_time_limit_stops_between_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def slowly(prompt: str, prefix: str) -> str:
        nonlocal now
        now += 0.05
        return " none"

    # A clock of the test: a busy machine can spend the limit before the first chunk.
    monkeypatch.setattr("models.chapters.podtile.time", SimpleNamespace(monotonic=lambda: now))

    generator = Written(slowly)
    with pytest.raises(Overloaded, match="in time") as late:
        PodtileEngine(generator).propose(talk(SENTENCES * 10), seconds=0.12)
    assert late.value.code == "chapters_late"
    assert len(generator.prompts) == 3


def test_a_line_longer_than_a_chunk_is_truncated() -> None:
    generator = Written(marked, part_pieces=100)
    PodtileEngine(generator).propose(talk(["a b c d e f g h i j k l m n o p " * 60]))
    assert all(sum(generator.pieces([prompt])) <= 100 for prompt, _ in generator.prompts)


class Quarters:
    """An engine that proposes a boundary at each quarter of the text."""

    fingerprint = "quarters"

    def propose(self, episode: "object", seconds: float | None = None) -> list[ProposedChapter]:
        offsets = talk(SENTENCES).segments.offsets
        return [ProposedChapter(offsets[i], "theirs") for i in (150, 50, 100, 50)]


def test_the_generator_titles_boundaries_of_another_engine() -> None:
    generator = Written(lambda prompt, prefix: f" About {re.findall('number (.+?) ', prompt)[0]} [2] Another")
    engine = PodtileEngine(generator, boundaries=Quarters())
    episode = talk(SENTENCES)
    found = engine.propose(episode)
    assert [one.start for one in found] == [episode.segments.offsets[i] for i in (0, 50, 100, 150)]
    assert found[0].title == "About 0"
    assert [int(one.title.split()[1]) for one in found] == sorted(int(one.title.split()[1]) for one in found)
    assert "theirs" not in {one.title for one in found}
    assert all(prefix == " [1]" for _, prefix in generator.prompts)
    assert all(sum(generator.pieces([prompt])) <= generator.title_pieces for prompt, _ in generator.prompts)
    assert engine.fingerprint != PodtileEngine(generator).fingerprint != PodtileEngine(generator, ahead=0).fingerprint


def test_ten_hours_are_read_in_chunks_of_bounded_size() -> None:
    generator = Written(lambda prompt, prefix: " none", part_pieces=1000)
    PodtileEngine(generator).propose(
        talk([f"And then number {i} came along with quite a story of its own." for i in range(8000)])
    )
    assert len(generator.prompts) > 100
    assert max(sum(generator.pieces([prompt])) for prompt, _ in generator.prompts) <= 1000


def test_the_error_without_torch_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigurationError, match=r"\.\[train\]") as refused:
        open_podtile(str(tmp_path))
    assert refused.value.code == "missing_library"


def test_a_shipped_model_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "manifest.json").write_text("{}")
    monkeypatch.setattr("models.chapters.podtile_checkpoint.SHIPPED_DIRECTORY", tmp_path)
    assert resolve_generator_source("shipped") == tmp_path / "shipped"
    for other in ("./shipped", "Shipped"):
        with pytest.raises(ConfigurationError, match=other):
            resolve_generator_source(other)


def test_the_shipped_adapters_are_complete_and_name_their_base() -> None:
    directory = SHIPPED_DIRECTORY / Settings.model_fields["chapter_model"].default
    manifest = read_chapter_manifest(directory)
    assert manifest.base is not None
    assert manifest.base.source in STARTING_MODELS
    assert manifest.licence == "Apache-2.0"
    assert manifest.boundaries == "tiling"
    assert {path.name for path in directory.iterdir()} == {*manifest.files, "manifest.json"}
