"""Talks in the worker: chapters, windows, vectors, failed engines and another generation."""

import time
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from indexer.encode_task import run_encode
from indexer.encoding import MAX_RUN_WINDOWS
from indexer.runtime import Runtime, WorkerSettings
from models.chapters.engine import Episode
from models.encoder import Encoder
from services.dates import now_ms
from services.errors import ConfigurationError, Overloaded
from services.index_spec import Generation
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import refresh_call
from services.opensearch.reindex import copy_write, is_pending_write
from services.opensearch.stored_document import StoredDocument
from services.queue.messages import EncodeMessage
from services.settings import Settings
from services.talk.model import Chapter, Repair
from tests.integration.indexer.journalled import Hooked
from tests.integration.indexer.reindexing import run_command

SPEC = {"talk": {"link": "https://player.example/{id}?t={start}"}, "window": {"pieces": 16, "overlap": 4}}
SEGMENTS = [
    {"start": 10 * n, "end": 10 * n + 9, "speaker": "Ada" if n < 6 else "Bo", "text": f"We speak of {what} now."}
    for n, what in enumerate(["whales"] * 4 + ["anchors"] * 4 + ["storms"] * 4)
]


class Thirds:
    """An engine that returns three chapters, or fails."""

    fingerprint = "thirds"

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.call_count = error, 0

    def chapters(self, episode: Episode, seconds: float) -> tuple[Sequence[Chapter], Sequence[Repair]]:
        self.call_count += 1
        if self.error is not None:
            raise self.error
        offsets = [*episode.segments.offsets, len(episode.text)]
        places = [(offsets[0], offsets[4]), (offsets[4], offsets[8]), (offsets[8], offsets[12])]
        return [Chapter(f"Part {n}", start, end, 40.0 * n, 40.0 * n + 39) for n, (start, end) in enumerate(places)], [
            Repair("title_replaced", "an empty title", 2)
        ]


class Talks:
    """An index of talks."""

    def __init__(self, api: httpx.Client, settings: Settings, runtime: Runtime, search: SyncSearchClient) -> None:
        assert api.put("/v1/indexes/talks", json=SPEC).status_code == 201
        self.api, self.settings, self.runtime, self._search = api, settings, runtime, search

    @property
    def generation(self) -> Generation:
        return self.runtime.generation("talks")

    def put(self, *documents: dict[str, Any]) -> None:
        answer = self.api.post("/v1/indexes/talks/documents", json=list(documents)).json()
        assert not answer["rejected"], answer

    def encode(self, *ids: str, maker: Thirds, redelivered: bool = False) -> dict[str, int]:
        runtime = Runtime(self.settings, self.runtime.worker, self._load, load_maker=lambda *_: maker)
        counts = run_encode(runtime, EncodeMessage(index="talks", ids=ids), redelivered=redelivered)
        self._search.send(refresh_call(self.generation.physical))
        return counts

    def _load(self, settings: Settings) -> Encoder:
        return self.runtime.encoder

    def refresh(self) -> None:
        self._search.send(refresh_call(self.generation.physical))

    def stored(self, one: str) -> dict[str, Any]:
        found: dict[str, Any] = self._search.send(Call("GET", f"/{self.generation.physical}/_doc/{one}"))
        return found

    def search(self, **body: Any) -> list[dict[str, Any]]:
        answer = self.api.post("/v1/indexes/talks/search", json={"query": "anchors"} | body)
        assert answer.status_code == 200, answer.text
        hits: list[dict[str, Any]] = answer.json()["hits"]
        return hits


@pytest.fixture
def talks(api: httpx.Client, settings: Settings, runtime: Runtime, search: SyncSearchClient) -> Talks:
    return Talks(api, settings, runtime, search)


def talk(one: str = "a", **more: Any) -> dict[str, Any]:
    return {"id": one, "kind": "talk", "title": "At sea", "segments": SEGMENTS, "url": "https://x.example/a.mp3"} | more


def test_a_talk_gets_chapters_and_is_found_and_opened_in_them(talks: Talks) -> None:
    plain = {"id": "p", "text": "A text about anchors that is no talk."}
    talks.put(talk(), plain)
    assert talks.encode("a", "p", maker=Thirds()) == {"encoded": 2}
    source = talks.stored("a")["_source"]
    assert [chapter["title"] for chapter in source["chapters"]] == source["chapter_titles"]
    assert source["chaptering"] == {
        "engine": "tiling", "fingerprint": "thirds",
        "repairs": [{"code": "title_replaced", "detail": "an empty title", "count": 2}],
    }  # fmt: skip
    assert not [one for one in source["chapters"] if {"sparse", "words"} & one.keys()], "searched, not kept"
    edges = {chapter["end"] + len("At sea\n") for chapter in source["chapters"]}
    assert not [1 for w in source["windows"] for edge in edges if w["start"] < edge < w["end"]]
    for mode in ("sparse", "lexical", "hybrid"):
        (hit,) = talks.search(unit="chapter", mode=mode, size=1)
        assert hit["chapter"] == {
            "number": 2, "title": "Part 1", "start": source["chapters"][1]["start"],
            "end": source["chapters"][1]["end"], "start_time": 40.0, "end_time": 79.0,
        }  # fmt: skip
        assert hit["link"] == "https://player.example/a?t=40"
        assert "anchors" in hit["passage"]["text"]
        passages = talks.search(unit="passage", mode=mode)
        assert {one["id"] for one in passages} == {"a", "p"}
        (first, *_) = [one for one in passages if one["id"] == "a"]
        assert 40 <= first["passage"]["start_time"] < first["passage"]["end_time"] <= 79
        assert first["passage"]["speaker"] in ("Ada", "Bo")
        assert first["link"] == f"https://player.example/a?t={int(first['passage']['start_time'])}"
        by_document = {one["id"]: one for one in talks.search(mode=mode)}
        assert by_document["a"]["chapter"]["number"] == 2
        assert not {"chapter", "link"} & by_document["p"].keys()


def test_the_producers_chapters_are_kept(talks: Talks) -> None:
    maker = Thirds()
    talks.put(talk(chapters=[{"startTime": 0, "title": "Whales"}, {"startTime": 60, "title": "The rest"}]))
    talks.refresh()
    assert [hit["state"] for hit in talks.search(query="the rest", mode="lexical")] == ["pending"], "nobody says it"
    talks.encode("a", maker=maker)
    source = talks.stored("a")["_source"]
    assert maker.call_count == 0
    assert [hit["id"] for hit in talks.search(query="the rest", mode="lexical")] == ["a"]
    assert source["chaptering"] == {"engine": "given"}
    assert source["chapter_titles"] == ["Whales", "The rest"]
    assert talks.search(unit="chapter", query="the rest", mode="lexical")[0]["chapter"]["number"] == 2


@pytest.mark.parametrize("error", [Overloaded("chapters_late", "too late"), RuntimeError("out of its mind")])
def test_a_failed_engine_leaves_the_talk_searchable_and_says_so(talks: Talks, error: Exception) -> None:
    talks.put(talk())
    assert talks.encode("a", maker=Thirds(error)) == {"encoded": 1, "without chapters": 1}
    source = talks.stored("a")["_source"]
    assert source["state"] == "encoded"
    assert "chapters" not in source
    assert source["chaptering"]["error"]["code"] in ("chapters_late", "chapters_failed")
    assert talks.search(unit="chapter") == []
    assert talks.search(unit="passage")[0]["passage"]["start_time"] >= 30
    assert "chapter" not in talks.search()[0]


def test_an_engine_that_kills_its_worker_is_left_out_in_the_last_attempt(talks: Talks) -> None:
    """Each message comes back because its worker died. The worker cannot record the engine's failure."""
    talks.put(talk())
    maker = Thirds()

    def dies(*_: object) -> Any:
        raise KeyboardInterrupt

    for _ in range(talks.settings.max_attempts):
        maker.chapters = dies  # type: ignore[method-assign]
        try:
            counts = talks.encode("a", maker=maker, redelivered=True)
        except KeyboardInterrupt:
            continue
        break
    assert counts == {"encoded": 1, "without chapters": 1}
    assert talks.stored("a")["_source"]["chaptering"]["error"]["code"] == "chapters_gave_up"


def test_with_one_attempt_allowed_talk_still_goes_without_its_engine(talks: Talks) -> None:
    talks.put(talk())
    talks.settings = talks.settings.model_copy(update={"max_attempts": 1})
    assert talks.encode("a", maker=Thirds(), redelivered=True) == {"encoded": 1, "without chapters": 1}
    assert talks.stored("a")["_source"]["chaptering"]["error"]["code"] == "chapters_gave_up"


def test_long_talk_is_not_overdue_while_a_worker_is_at_it(
    talks: Talks, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.encode_task.LONG_TALK_CHARACTERS", 10)
    talks.put(talk())
    maker, seen = Thirds(), []

    def look(episode: Episode, seconds: float) -> Any:
        seen.append(talks.stored("a")["_source"])
        return Thirds().chapters(episode, seconds)

    maker.chapters = look  # type: ignore[method-assign]
    assert talks.encode("a", maker=maker) == {"encoded": 1}
    (source,) = seen
    assert source["attempts"] == 1
    assert source["due_at"] - now_ms() > 1000 * (runtime.worker.task_limit - 60) > 1000 * talks.settings.lease_seconds


def test_an_engine_that_cannot_be_opened_is_not_tried_for_each_talk(talks: Talks) -> None:
    opened = []

    def load(*_: object) -> Thirds:
        opened.append(1)
        raise ConfigurationError("not_fetched", "The index of packages is away.")

    talks.put(talk("a"), talk("b"))
    runtime = Runtime(talks.settings, talks.runtime.worker, lambda _: talks.runtime.encoder, load_maker=load)
    counts = run_encode(runtime, EncodeMessage(index="talks", ids=("a", "b")), redelivered=False)
    assert counts == {"encoded": 2, "without chapters": 2}
    assert [talks.stored(one)["_source"]["chaptering"]["error"]["code"] for one in "ab"] == ["not_fetched"] * 2
    assert len(opened) == 1


def test_a_command_changes_how_talk_is_linked(talks: Talks) -> None:
    talks.put(talk())
    talks.encode("a", maker=Thirds())
    status, output = run_command(
        talks.settings, "reindex", "talks", "--talk", "link=https://other.example/{id}#{start}", "--unchecked"
    )
    assert status == 0, output
    assert "vectors: copied" in output
    assert talks.search()[0]["link"].startswith("https://other.example/a#")
    for wrong in ("link", "chapters=tiling", "link=javascript:alert(1)"):
        status, output = run_command(talks.settings, "reindex", "talks", "--talk", wrong, "--unchecked")
        assert status != 0
        assert "bad_talk" in output or "bad_change" in output


def test_what_there_is_no_time_for_is_sent_on(talks: Talks, runtime: Runtime) -> None:
    talks.put(talk("a"), talk("b"), talk("c"))
    slow = Runtime(
        talks.settings, runtime.worker.model_copy(update={"task_budget": 1e-9}), load_maker=lambda *_: Thirds()
    )
    counts = run_encode(slow, EncodeMessage(index="talks", ids=("a", "b", "c")), redelivered=False)
    assert counts == {"encoded": 1, "left": 2}


def test_another_generation_copies_what_stays_and_chapters_the_rest_anew(talks: Talks) -> None:
    talks.put(talk("made"), talk("given", chapters=[{"startTime": 0, "title": "All"}]))
    talks.encode("made", "given", maker=Thirds())
    source = talks.generation
    assert source.spec.talk is not None
    other = source.model_copy(update={"chapters": "newer"})
    same = source.model_copy(update={"chapters": "thirds"})

    def again(one: str, target: Generation) -> bool:
        found = talks.stored(one)
        return is_pending_write(
            copy_write(source, target, StoredDocument(one, found["_version"], found["_source"]), 60)
        )

    assert [again(one, same) for one in ("made", "given")] == [False, False]
    assert [again(one, other) for one in ("made", "given")] == [True, False]


def test_an_index_without_talk_has_no_fields_of_it(
    api: httpx.Client, search: SyncSearchClient, runtime: Runtime
) -> None:
    assert api.put("/v1/indexes/plain").status_code == 201
    mapping = search.send(Call("GET", f"/{runtime.generation('plain').physical}/_mapping"))
    (fields,) = (one["mappings"]["properties"] for one in mapping.values())
    assert not {"chapters", "chapter_titles", "chaptering", "segments"} & fields.keys()


def test_a_command_gives_an_index_another_engine(talks: Talks) -> None:
    talks.put(talk("made"), talk("given", chapters=[{"startTime": 0, "title": "All"}]))
    talks.encode("made", "given", maker=Thirds())

    def engines(*options: str) -> dict[str, str]:
        status, output = run_command(talks.settings, "reindex", "talks", "--encode-here", "--unchecked", *options)
        assert status == 0, output
        talks.runtime.forget("talks")
        generation = talks.generation
        assert generation.spec.talk is not None
        assert f"-> {generation.spec.talk.chapters}" in output
        status, output = run_command(talks.settings, "generations", "drop", "talks")
        assert status == 0, output
        return {one: talks.stored(one)["_source"]["chaptering"]["engine"] for one in ("made", "given")}

    assert engines("--chapters", "none") == {"made": "none", "given": "given"}
    assert "chapters" not in talks.stored("made")["_source"]
    assert engines("--chapters", "tiling") == {"made": "tiling", "given": "given"}
    source = talks.stored("made")["_source"]
    assert source["chaptering"]["fingerprint"] == talks.generation.chapters
    assert source["chapters"][0]["start"] == 0
    status, output = run_command(talks.settings, "reindex", "talks", "--chapters", "oracle", "--encode-here")
    assert status != 0
    assert "bad_change" in output


def test_an_index_whose_engine_is_not_here_is_changed_in_other_ways(api: httpx.Client, settings: Settings) -> None:
    assert api.put("/v1/indexes/shows", json={"talk": {"chapters": "podtile"}}).status_code == 201
    lacking = settings.model_copy(update={"chapter_model": "/there/is/no/model"})
    status, output = run_command(lacking, "reindex", "shows", "--chapters", "podtile", "--unchecked")
    assert status != 0
    assert "/there/is/no/model" in output
    status, output = run_command(lacking, "reindex", "shows", "--language", "standard", "--unchecked")
    assert status == 0, output
    assert api.get("/v1/indexes/shows").json()["language"] == "standard"


@pytest.mark.parametrize("repetitions", [40, 400])
def test_a_long_talk_passes_through_several_tasks_with_the_chapters_of_the_first(
    talks: Talks, settings: Settings, standin: Encoder, repetitions: int
) -> None:
    """A talk above 100,000 characters counts its attempt before its chapters are made; a shorter talk counts none."""
    segments = [segment | {"text": str(segment["text"]) * repetitions} for segment in SEGMENTS]
    talks.put(talk("long", segments=segments), talk("whole", segments=segments))
    maker, slow = Thirds(), Hooked(standin, lambda _: time.sleep(0.02))
    short = Runtime(settings, WorkerSettings(task_budget=0.05), lambda _: slow, load_maker=lambda *_: maker)
    message, tasks = EncodeMessage(index="talks", ids=("long",)), 0
    while (counts := run_encode(short, message, redelivered=False)) == {"left": 1}:
        tasks += 1
    assert counts == {"encoded": 1}
    assert tasks > 1
    assert maker.call_count == 1
    assert talks.encode("whole", maker=Thirds()) == {"encoded": 1}
    long, whole = talks.stored("long")["_source"], talks.stored("whole")["_source"]
    assert sum(slow.runs) == len(whole["windows"]) > 3 * MAX_RUN_WINDOWS
    for member in ("windows", "chapters", "chapter_titles", "chaptering"):
        assert long[member] == whole[member]
    assert long.get("attempts", 0) == whole.get("attempts", 0) == (repetitions == 400)


def test_the_time_of_an_engine_leaves_a_talk_its_first_run(talks: Talks, settings: Settings, standin: Encoder) -> None:
    class Slow(Thirds):
        def chapters(self, episode: Episode, seconds: float) -> tuple[Sequence[Chapter], Sequence[Repair]]:
            time.sleep(0.3)
            return super().chapters(episode, seconds)

    talks.put(talk())
    runtime = Runtime(settings, WorkerSettings(task_budget=0.1), lambda _: standin, load_maker=lambda *_: Slow())
    assert run_encode(runtime, EncodeMessage(index="talks", ids=("a",)), redelivered=False) == {"encoded": 1}
