"""What chapters cost: an hour of talk chaptered and encoded, and ten hours in bounded memory, by the default engine.

    python -m benchmarks.chapter_cost ../shared/data --json benchmarks/results/chapter-cost.json

The hour is a held-out episode of near 9,000 words; ten hours are held-out episodes one after the other, 90,000 words.
Blocks are encoded for the chapters, then windows within these, as a worker does. `beside_encoding` is all that chapters
take but for the encoder. Processor seconds are those of all threads; on a busy machine they are the steadier ones.

What the chapters of a generator cost: an hour of talk, and ten hours in bounded memory, beside the default engine.

    python -m benchmarks.podtile_cost ../shared/data --json benchmarks/results/podtile-cost.json

The same hour and ten hours as `chapter_cost`. One thread. Memory is the most that the process had, and what it had
before the talk: encoder, generator and their libraries.
"""

import argparse
import resource
import time
import tracemalloc
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.measuring import make_parser, run_benchmark
from cli.relevance.segmentation import episode_hours
from models.chapters.engine import Episode, ProposedChapter, read_episodes
from models.chapters.maker import ChapterMaker, accept_proposals, open_chapter_engine
from models.chapters.texttiling import TextTilingEngine, cut_episode_blocks, encode_blocks
from models.chapters.titles import phrase_titles
from models.encoder import Encoder
from models.registry import load_encoder
from services.talk.model import UNKNOWN_TIME, Chapter, Segments

Result = TypeVar("Result")
_BATCH_TEXTS = 16
_HOUR_WORDS = 9_000  # words


def choose_hour(episodes: Iterable[Episode]) -> Episode:
    """The episode whose words are nearest to an hour's."""
    return min(episodes, key=lambda one: abs(len(one.text.split()) - _HOUR_WORDS))


def join_episodes(episodes: Iterable[Episode], words: int) -> Episode:
    """As many as have so many words, one after the other, without times and speakers."""
    texts: list[str] = []
    offsets = array("i")
    at = said = 0
    for one in episodes:
        if said >= words:
            break
        offsets.extend(at + offset for offset in one.segments.offsets)
        texts.append(one.text + "\n")
        at += len(texts[-1])
        said += len(one.text.split())
    unknown = array("i", [UNKNOWN_TIME]) * len(offsets)
    return Episode("", "", "".join(texts), Segments(offsets, unknown, unknown, unknown))


def tiling_cost(encoder: Encoder, episode: Episode) -> dict[str, Any]:
    """Seconds of each step of one talk."""
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
    """MB at most that dividing and titling take beside the text and the vectors of its blocks."""
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
    results = step()
    return results, {
        "seconds": round(time.perf_counter() - wall, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
    }


def measure_tiling(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """The best of some rounds of an hour, and one of ten hours."""
    encoder = load_encoder("bootstrap-minilm-l6", threads=2)
    path = arguments.data / "chapters" / "syntax_fm.jsonl.gz"
    episodes = [one.episode for one in read_episodes(path) if one.held_out]
    hour = choose_hour(episodes)
    rounds = [tiling_cost(encoder, hour) for _ in range(arguments.rounds)]
    results = {"hour": min(rounds, key=lambda one: float(one["all"]["seconds"]))}
    print(results["hour"], flush=True)
    if arguments.long:
        long = join_episodes(episodes, 10 * _HOUR_WORDS)
        results["ten_hours"] = tiling_cost(encoder, long) | {"peak_mb": peak_memory_mb(encoder, long)}
        print(results["ten_hours"], flush=True)
    return results


def chapter_cost(argv: list[str] | None = None) -> None:
    """Measure time and memory of chaptering and encoding one hour and ten hours of talk."""
    parser = make_parser("chapter_cost", chapter_cost.__doc__)
    parser.add_argument("data", type=Path, help="the folder that holds chapters/syntax_fm.jsonl.gz")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-long", dest="long", action="store_false", help="leave the ten hours out")
    run_benchmark("chapter_cost", parser, measure_tiling, argv)


TEN_HOURS_WORDS = 90_000  # words


def generator_cost(maker: ChapterMaker, episode: Episode) -> dict[str, Any]:
    """Of the chapters of one talk."""
    before, started, processor = _resident_mb(), time.perf_counter(), time.process_time()
    chapters, repairs = maker.chapters(episode)
    return {
        "words": len(episode.text.split()),
        "hours": round(episode_hours(episode), 2),
        "chapters": len(chapters),
        "repairs": {one.code: one.count for one in repairs},
        "seconds": round(time.perf_counter() - started, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
        "megabytes": {"before": before, "most": _resident_mb()},
    }


def _resident_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _measure_generator(arguments: argparse.Namespace) -> Mapping[str, Any]:
    encoder = load_encoder("bootstrap-minilm-l6", threads=1)
    makers = {"tiling": ChapterMaker(open_chapter_engine("tiling", encoder))}
    makers["podtile"] = ChapterMaker(open_chapter_engine("podtile", encoder, arguments.model, threads=1))
    path = arguments.data / "chapters" / "syntax_fm.jsonl.gz"
    talks = [one.episode for one in read_episodes(path) if one.held_out]
    lengths = {"hour": choose_hour(talks), "ten_hours": join_episodes(talks, TEN_HOURS_WORDS)}
    figures = {
        name: {length: generator_cost(maker, talk) for length, talk in lengths.items()}
        for name, maker in makers.items()
    }
    for name, results in figures.items():
        for length, one in results.items():
            print(f"{name}, {length}: {one}", flush=True)
    return figures


def podtile_cost(argv: list[str] | None = None) -> None:
    """Measure time and memory of chapters with a generator's titles, beside the default engine."""
    parser = make_parser("podtile_cost", podtile_cost.__doc__)
    parser.add_argument("data", type=Path, help="the folder that holds chapters/syntax_fm.jsonl.gz")
    parser.add_argument("--model", default="podtile-smollm2", help="directory or name of a chapter model")
    run_benchmark("podtile_cost", parser, _measure_generator, argv)
