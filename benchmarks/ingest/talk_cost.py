"""Cost of talk: parsing a transcript, and making chapters of one hour and of ten.

    python -m benchmarks talk_intake --json benchmarks/results/talk_intake.json
    python -m benchmarks chapter_cost ../shared/data --json benchmarks/results/chapter-cost.json
    python -m benchmarks podtile_cost ../shared/data --json benchmarks/results/podtile-cost.json

`talk_intake` parses ten hours of synthetic talk in 50,000 segments, one every 0.72 s, in each format; `plain text` is a
paragraph without a full stop. No server is needed.

The hour of the other two is a held-out episode of about 9,000 words; the ten hours are held-out episodes in sequence,
90,000 words. `chapter_cost` measures the default engine: blocks are encoded for the chapters, then the windows within
them, as a worker does. `beside_encoding` is the time for chapters without the encoder. `podtile_cost` measures an
engine with a generator of titles (docs/decisions/0197), in one thread, with the memory of the process before the talk
and its peak.
"""

import argparse
import resource
import time
import tracemalloc
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson

from benchmarks.measuring import make_parser, run_benchmark
from cli.relevance.segmentation import episode_hours
from models.chapters.engine import Episode, ProposedChapter, read_episodes
from models.chapters.maker import EngineChapterMaker, accept_proposals, open_chapter_engine
from models.chapters.texttiling import TextTilingEngine, cut_episode_blocks, encode_blocks
from models.chapters.titles import phrase_titles
from models.encoder import Encoder
from models.registry import load_encoder
from services.documents.document import parse_document_bytes
from services.index_spec import IndexSpec
from services.talk.chapters import format_clock
from services.talk.model import UNKNOWN_TIME, Chapter, Segments

Result = TypeVar("Result")
TALK_SPEC = IndexSpec.model_validate({"talk": {}})
_SECONDS_PER_SEGMENT = 0.72
_BATCH_TEXTS = 16
_HOUR_WORDS = 9_000


def chapter_cost(argv: list[str] | None = None) -> None:
    """Measure time and memory of chaptering and encoding one hour and ten hours of talk."""
    parser = make_parser("chapter_cost", chapter_cost.__doc__)
    parser.add_argument("data", type=Path, help="folder of chapters/syntax_fm.jsonl.gz")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-long", dest="long", action="store_false", help="skip the ten hours")
    run_benchmark("chapter_cost", parser, measure_tiling, argv)


def measure_tiling(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return the best of some rounds of an hour, and one round of ten hours."""
    encoder = load_encoder("projected-minilm-l6", threads=2)
    path = arguments.data / "chapters" / "syntax_fm.jsonl.gz"
    episodes = [annotated.episode for annotated in read_episodes(path) if annotated.held_out]
    hour = choose_hour(episodes)
    rounds = [tiling_cost(encoder, hour) for _ in range(arguments.rounds)]
    results = {"hour": min(rounds, key=lambda costs: float(costs["all"]["seconds"]))}
    print(results["hour"], flush=True)
    if arguments.long:
        long = join_episodes(episodes, 10 * _HOUR_WORDS)
        results["ten_hours"] = tiling_cost(encoder, long) | {"peak_mb": peak_memory_mb(encoder, long)}
        print(results["ten_hours"], flush=True)
    return results


def choose_hour(episodes: Iterable[Episode]) -> Episode:
    """Return the episode with the number of words nearest to an hour's."""
    return min(episodes, key=lambda episode: abs(len(episode.text.split()) - _HOUR_WORDS))


def join_episodes(episodes: Iterable[Episode], words: int) -> Episode:
    """Return episodes in sequence up to `words` words, without times and speakers."""
    texts: list[str] = []
    offsets = array("i")
    characters = word_count = 0
    for episode in episodes:
        if word_count >= words:
            break
        offsets.extend(characters + offset for offset in episode.segments.offsets)
        texts.append(episode.text + "\n")
        characters += len(texts[-1])
        word_count += len(episode.text.split())
    unknown = array("i", [UNKNOWN_TIME]) * len(offsets)
    return Episode("", "", "".join(texts), Segments(offsets, unknown, unknown, unknown))


def tiling_cost(encoder: Encoder, episode: Episode) -> dict[str, Any]:
    """Return the seconds of each step for one talk."""
    engine = TextTilingEngine(encoder)
    cut, first = _time_step(lambda: cut_episode_blocks(episode))
    vectors, blocks = _time_step(lambda: encode_blocks(encoder, episode.text, cut))
    chapters, rest = _time_step(
        lambda: accept_proposals(
            episode,
            [ProposedChapter(0), *map(ProposedChapter, engine.boundaries(episode, cut, vectors))],
            phrase_titles,
        )[0]
    )
    count, windows = _time_step(lambda: _encode_chapters(encoder, episode, chapters))
    return {
        "hours": round(episode_hours(episode), 2),
        "words": len(episode.text.split()),
        "segments": len(episode.segments),
        "blocks": len(cut),
        "chapters": len(chapters),
        "windows": count,
        "blocks_encoded": blocks,
        "beside_encoding": {name: round(first[name] + rest[name], 2) for name in first},
        "windows_encoded": windows,
        "all": {name: round(first[name] + blocks[name] + rest[name] + windows[name], 2) for name in first},
    }


def peak_memory_mb(encoder: Encoder, episode: Episode) -> float:
    """Return the peak MB of division and titles, beside the text and the vectors of its blocks."""
    engine = TextTilingEngine(encoder)
    cut = cut_episode_blocks(episode)
    vectors = encode_blocks(encoder, episode.text, cut)
    tracemalloc.start()
    try:
        accept_proposals(
            episode,
            [ProposedChapter(0), *map(ProposedChapter, engine.boundaries(episode, cut, vectors))],
            phrase_titles,
        )
        return round(tracemalloc.get_traced_memory()[1] / 1e6, 1)
    finally:
        tracemalloc.stop()


def _encode_chapters(encoder: Encoder, episode: Episode, chapters: Sequence[Chapter]) -> int:
    count = 0
    for chapter in chapters:
        windows = encoder.windows(episode.text[chapter.start : chapter.end])
        for first in range(0, len(windows), _BATCH_TEXTS):
            encoder.encode(windows[first : first + _BATCH_TEXTS])
        count += len(windows)
    return count


def _time_step(step: Callable[[], Result]) -> tuple[Result, dict[str, float]]:
    wall, processor = time.perf_counter(), time.process_time()
    result = step()
    return result, {
        "seconds": round(time.perf_counter() - wall, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
    }


def podtile_cost(argv: list[str] | None = None) -> None:
    """Measure time and memory of chapters with a generator's titles, beside the default engine."""
    parser = make_parser("podtile_cost", podtile_cost.__doc__)
    parser.add_argument("data", type=Path, help="folder of chapters/syntax_fm.jsonl.gz")
    parser.add_argument("--model", default="podtile-smollm2", help="directory or name of a chapter model")
    run_benchmark("podtile_cost", parser, measure_generator, argv)


def measure_generator(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return the costs of both engines for an hour and for ten hours."""
    encoder = load_encoder("projected-minilm-l6", threads=1)
    makers = {"tiling": EngineChapterMaker(open_chapter_engine("tiling", encoder))}
    makers["podtile"] = EngineChapterMaker(open_chapter_engine("podtile", encoder, arguments.model, threads=1))
    path = arguments.data / "chapters" / "syntax_fm.jsonl.gz"
    talks = [annotated.episode for annotated in read_episodes(path) if annotated.held_out]
    lengths = {"hour": choose_hour(talks), "ten_hours": join_episodes(talks, 10 * _HOUR_WORDS)}
    figures = {
        name: {length: generator_cost(maker, talk) for length, talk in lengths.items()}
        for name, maker in makers.items()
    }
    for name, results in figures.items():
        for length, row in results.items():
            print(f"{name}, {length}: {row}", flush=True)
    return figures


def generator_cost(maker: EngineChapterMaker, episode: Episode) -> dict[str, Any]:
    """Return time, memory and repairs of the chapters of one talk."""
    before, started, processor = _resident_mb(), time.perf_counter(), time.process_time()
    chapters, repairs = maker.chapters(episode)
    return {
        "words": len(episode.text.split()),
        "hours": round(episode_hours(episode), 2),
        "chapters": len(chapters),
        "repairs": {repair.code: repair.count for repair in repairs},
        "seconds": round(time.perf_counter() - started, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
        "megabytes": {"before": before, "most": _resident_mb()},
    }


def _resident_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def talk_intake(argv: list[str] | None = None) -> None:
    """Measure time and memory to parse a transcript of 50,000 segments, by format."""
    parser = make_parser("talk_intake", talk_intake.__doc__)
    parser.add_argument("--segments", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    run_benchmark("talk_intake", parser, measure_talk, argv)


def measure_talk(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return processor seconds (the best round), peak memory and the size of the result, by format."""
    rows = {}
    for name, members in make_transcripts(arguments.segments).items():
        raw = orjson.dumps({"id": "t", "kind": "talk", **members})
        read = partial(parse_document_bytes, raw, TALK_SPEC)
        document = read()
        assert document.talk is not None  # noqa: S101 (for the types)
        rows[name] = {
            "bytes": len(raw),
            "segments": len(document.talk.segments),
            "stored_bytes": len(orjson.dumps(document.talk.segments.pack())),
            "seconds": round(min(_processor_seconds(read) for _ in range(arguments.rounds)), 3),
            "peak_mb": round(_peak_bytes(read) / 1e6, 1),
        }
        print(f"{name:>12}: {rows[name]['seconds']:.2f} s, {rows[name]['peak_mb']:.0f} MB at most")
    return {"forms": rows}


def make_transcripts(segments: int) -> dict[str, dict[str, Any]]:
    """Return the members of a talk in each format."""
    rows = [
        (i * _SECONDS_PER_SEGMENT, i * _SECONDS_PER_SEGMENT + 0.7, f"S{i // 20 % 5}", f"w{i} and so")
        for i in range(segments)
    ]
    cues = [(format_clock(start), format_clock(end), speaker, text) for start, end, speaker, text in rows]
    podcasting = {
        "version": "1.0.0",
        "segments": [{"startTime": s, "endTime": e, "speaker": who, "body": t} for s, e, who, t in rows],
    }
    srt = (f"{i}\n{s.replace('.', ',')} --> {e.replace('.', ',')}\n{t}\n" for i, (s, e, _, t) in enumerate(cues, 1))
    return {
        "segments": {"segments": [{"start": s, "end": e, "speaker": who, "text": t} for s, e, who, t in rows]},
        "podcasting": {"transcript": {"type": "application/json", "text": orjson.dumps(podcasting).decode()}},
        "webvtt": {
            "transcript": {
                "type": "text/vtt",
                "text": "WEBVTT\n\n" + "\n".join(f"{s} --> {e}\n<v {who}>{t}\n" for s, e, who, t in cues),
            }
        },
        "subrip": {"transcript": {"type": "application/x-subrip", "text": "\n".join(srt)}},
        "plain text": {"text": "so and then " * (segments * 5 // 3)},
    }


def _processor_seconds(read: Callable[[], object]) -> float:
    started = time.process_time()
    read()
    return time.process_time() - started


def _peak_bytes(read: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
