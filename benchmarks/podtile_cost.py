"""What the chapters of a generator cost: an hour of talk, and ten hours in bounded memory, beside the default engine.

    python -m benchmarks.podtile_cost ../shared/data --json benchmarks/results/podtile-cost.json

The same hour and ten hours as `chapter_cost`. One thread. Memory is the most that the process had, and what it had
before the talk: encoder, generator and their libraries.
"""

import argparse
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.chapter_cost import joined, one_hour
from benchmarks.record import command_line, run
from cli.segmentation.comparison import hours
from models.chapters.engine import Episode
from models.chapters.episodes import read_episodes
from models.chapters.opening import ChapterMaker, open_engine
from models.registry import load_encoder

TEN_HOURS = 90_000  # words


def cost(maker: ChapterMaker, episode: Episode) -> dict[str, Any]:
    """Of the chapters of one talk."""
    before, began, processor = _megabytes(), time.perf_counter(), time.process_time()
    chapters, repairs = maker.chapters(episode)
    return {
        "words": len(episode.text.split()),
        "hours": round(hours(episode), 2),
        "chapters": len(chapters),
        "repairs": {one.code: one.count for one in repairs},
        "seconds": round(time.perf_counter() - began, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
        "megabytes": {"before": before, "most": _megabytes()},
    }


def _megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _measure(arguments: argparse.Namespace) -> Mapping[str, Any]:
    encoder = load_encoder("bootstrap-minilm-l6", threads=1)
    makers = {"tiling": ChapterMaker(open_engine("tiling", encoder))}
    makers["podtile"] = ChapterMaker(open_engine("podtile", encoder, arguments.model, threads=1))
    path = arguments.data / "chapters" / "syntax_fm.jsonl.gz"
    talks = [one.episode for one in read_episodes(path) if one.held_out]
    lengths = {"hour": one_hour(talks), "ten_hours": joined(talks, TEN_HOURS)}
    figures = {name: {length: cost(maker, talk) for length, talk in lengths.items()} for name, maker in makers.items()}
    for name, found in figures.items():
        for length, one in found.items():
            print(f"{name}, {length}: {one}", flush=True)
    return figures


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("podtile_cost", __doc__ or "")
    parser.add_argument("data", type=Path, help="the folder that holds chapters/syntax_fm.jsonl.gz")
    parser.add_argument("--model", default="podtile-smollm2", help="directory or name of a chapter model")
    run("podtile_cost", parser, _measure, arguments)


if __name__ == "__main__":
    main()
