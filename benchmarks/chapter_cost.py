"""What chapters cost: an hour of talk chaptered and encoded, and ten hours in bounded memory, by the default engine.

    python -m benchmarks.chapter_cost ../shared/data --json benchmarks/results/chapter-cost.json

The hour is a held-out episode of near 9,000 words; ten hours are held-out episodes one after the other, 90,000 words.
Blocks are encoded for the chapters, then windows within these, as a worker does. `beside_encoding` is all that chapters
take but for the encoder. Processor seconds are those of all threads; on a busy machine they are the steadier ones.
"""

import argparse
import time
import tracemalloc
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.record import command_line, run
from cli.segmentation.comparison import hours
from models.chapters.accepting import accepted
from models.chapters.engine import Episode, Proposed
from models.chapters.episodes import read_episodes
from models.chapters.tiling.engine import Tiling, block_vectors, cut_blocks
from models.chapters.titles.phrases import phrase_titles
from models.encoder import Encoder
from models.registry import load_encoder
from services.talk.chapters import Chapter
from services.talk.segments import UNKNOWN, Segments

Result = TypeVar("Result")
_RUN = 16
_HOUR = 9_000  # words


def one_hour(episodes: Iterable[Episode]) -> Episode:
    """The episode whose words are nearest to an hour's."""
    return min(episodes, key=lambda one: abs(len(one.text.split()) - _HOUR))


def joined(episodes: Iterable[Episode], words: int) -> Episode:
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
    unknown = array("i", [UNKNOWN]) * len(offsets)
    return Episode("", "", "".join(texts), Segments(offsets, unknown, unknown, unknown))


def cost(encoder: Encoder, episode: Episode) -> dict[str, Any]:
    """Seconds of each step of one talk."""
    engine = Tiling(encoder)
    cut, first = _timed(lambda: cut_blocks(episode))
    vectors, blocks = _timed(lambda: block_vectors(encoder, episode.text, cut))
    chapters, rest = _timed(
        lambda: accepted(
            episode, [Proposed(0), *map(Proposed, engine.boundaries(episode, cut, vectors))], phrase_titles
        )[0]
    )
    count, windows = _timed(lambda: _encode(encoder, episode, chapters))
    return {
        "hours": round(hours(episode), 2),
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


def memory(encoder: Encoder, episode: Episode) -> float:
    """MB at most that dividing and titling take beside the text and the vectors of its blocks."""
    engine = Tiling(encoder)
    cut = cut_blocks(episode)
    vectors = block_vectors(encoder, episode.text, cut)
    tracemalloc.start()
    try:
        accepted(episode, [Proposed(0), *map(Proposed, engine.boundaries(episode, cut, vectors))], phrase_titles)
        return round(tracemalloc.get_traced_memory()[1] / 1e6, 1)
    finally:
        tracemalloc.stop()


def _encode(encoder: Encoder, episode: Episode, chapters: Sequence[Chapter]) -> int:
    count = 0
    for chapter in chapters:
        windows = encoder.windows(episode.text[chapter.start : chapter.end])
        for first in range(0, len(windows), _RUN):
            encoder.encode(windows[first : first + _RUN])
        count += len(windows)
    return count


def _timed(step: Callable[[], Result]) -> tuple[Result, dict[str, float]]:
    wall, processor = time.perf_counter(), time.process_time()
    found = step()
    return found, {
        "seconds": round(time.perf_counter() - wall, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
    }


def measure(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """The best of some rounds of an hour, and one of ten hours."""
    encoder = load_encoder("bootstrap-minilm-l6", threads=2)
    path = arguments.data / "chapters" / "syntax_fm.jsonl.gz"
    episodes = [one.episode for one in read_episodes(path) if one.held_out]
    hour = one_hour(episodes)
    rounds = [cost(encoder, hour) for _ in range(arguments.rounds)]
    found = {"hour": min(rounds, key=lambda one: float(one["all"]["seconds"]))}
    print(found["hour"], flush=True)
    if arguments.long:
        long = joined(episodes, 10 * _HOUR)
        found["ten_hours"] = cost(encoder, long) | {"peak_mb": memory(encoder, long)}
        print(found["ten_hours"], flush=True)
    return found


def main(given: list[str] | None = None) -> None:
    parser = command_line("chapter_cost", __doc__ or "")
    parser.add_argument("data", type=Path, help="the folder that holds chapters/syntax_fm.jsonl.gz")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-long", dest="long", action="store_false", help="leave the ten hours out")
    run("chapter_cost", parser, measure, given)


if __name__ == "__main__":
    main()
