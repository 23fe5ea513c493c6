"""How near chapters come to those that people made: the engine tiling, and simpler ways, on two sets.

    python -m benchmarks.chapters ../shared/data --cache DIR --json benchmarks/results/chapters.json
    python -m benchmarks.chapters ../shared/data --cache DIR --tune --json benchmarks/results/chapters-tuning.json

What is reported is of the held-out half of the episodes (by their ids). With --tune parameters are compared on the
other half: of the engine its price and cues, of TextTiling its reach, smoothing and cut-off, of equal lengths the
length. One choice for both sets, by the mean of Pk and WindowDiff over both, is what each way is reported with.
"""

import argparse
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.chapter_vectors import Encoded, encoded
from benchmarks.record import command_line, run
from cli.segmentation import baselines
from cli.segmentation.comparison import Tally, Way, compare, divided, titled
from cli.segmentation.measures import Likeness, Titles, likeness
from models.chapters.accepting import accepted
from models.chapters.engine import Proposed
from models.chapters.episodes import Chaptered, read_episodes
from models.chapters.tiling.cues import Cues
from models.chapters.tiling.engine import Tiling
from models.chapters.titles.phrases import phrase_titles
from models.encoder import Encoder
from models.registry import load_encoder

SETS = ("syntax_fm", "bitcoin_transcripts")
NLTK = 20  # episodes: its TextTiling takes as long for one as everything else together
NO_CUES = Cues({}, {}, {}, 0.0)


def chosen(data: Path, name: str, held_out: bool, limit: int | None) -> list[Chaptered]:
    """Episodes of one half of a set, the first ones in an order by hash."""
    found = [one for one in read_episodes(data / "chapters" / f"{name}.jsonl.gz") if one.held_out is held_out]
    return sorted(found, key=lambda one: hashlib.sha256(one.id.encode()).digest())[:limit]


def held_out(encoder: Encoder, episodes: Iterable[Encoded]) -> dict[str, dict[str, Any]]:
    """Every way on the same episodes. Seconds are left out: vectors come from a cache."""
    by_id = {one.one.id: one for one in episodes}

    def tiling(engine: Tiling) -> Way:
        def way(one: Chaptered) -> Any:
            had = by_id[one.id]
            starts = engine.boundaries(one.episode, had.cut, had.vectors)
            return accepted(one.episode, [Proposed(0), *map(Proposed, starts)], phrase_titles)

        return way

    ways: dict[str, Way] = {
        "one chapter": divided(baselines.one_chapter),
        "equal lengths": divided(baselines.equal),
        "chance": divided(baselines.chance),
        "TextTiling, as many chapters": divided(
            lambda episode: baselines.texttiling(episode, reach=10, rounds=1, above=2.0)
        ),
        "TextTiling": divided(baselines.texttiling),
        "tiling without cues": tiling(Tiling(encoder, cues=NO_CUES)),
        "tiling": tiling(Tiling(encoder)),
        "tiling: titles": titled(lambda _, starts: list(map(Proposed, starts))),
    }
    some = [one.one for one in by_id.values()]
    tallies = compare(ways, some) | compare({"TextTiling (NLTK)": divided(baselines.texttiling_nltk)}, some[:NLTK])
    titles = Titles(encoder)
    return {name: _untimed(tally).figures(titles) for name, tally in tallies.items()}


def _untimed(tally: Tally) -> Tally:
    tally.hours = 0.0
    return tally


def tuned(sets: Mapping[str, Sequence[Encoded]], encoder: Encoder) -> dict[str, list[dict[str, Any]]]:
    """For each way its parameters with Pk, WindowDiff and chapters per human one on each set, best mean first."""
    made: dict[tuple[str, str], dict[str, list[Likeness]]] = defaultdict(lambda: defaultdict(list))
    for name, some in sets.items():
        for one in some:
            at = one.one.episode.segments.at
            human = [at(chapter.start) for chapter in one.one.chapters]
            for way, parameters, starts in _grid(one, encoder):
                found = likeness(human, starts, len(one.one.episode.segments))
                if found is not None:
                    made[way, json.dumps(parameters)][name].append(found)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (way, tried_with), by_set in made.items():
        rows[way].append(json.loads(tried_with) | _means(by_set))
    for way, tried in rows.items():
        tried.sort(key=lambda row: float(row["mean"]))
        for row in tried[:3]:
            print(f"{way}: {row}", flush=True)
    return dict(rows)


def _grid(one: Encoded, encoder: Encoder) -> Iterator[tuple[str, dict[str, float], Sequence[int]]]:
    episode = one.one.episode
    for words in (300, 600, 1200, 2000, 4000, 8000):
        yield "equal lengths", {"words": words}, baselines.equal(episode, words)
    counts = baselines.word_counts(episode, one.cut)
    for reach, rounds, above in product((4, 6, 10, 16, 24), (1, 3), (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)):
        found = baselines.valleys(episode, one.cut, counts, reach=reach, rounds=rounds, above=above)
        yield "TextTiling", {"reach": reach, "rounds": rounds, "above": above}, found
    for price, cue in (
        (0.045, 0.01),
        (0.05, 0.01),
        (0.055, 0.01),
        (0.06, 0.01),
        (0.07, 0.01),
        (0.055, 0.005),
        (0.055, 0),
    ):
        starts = Tiling(encoder, price=price, cue=cue).boundaries(episode, one.cut, one.vectors)
        yield "tiling", {"price": price, "cue": cue}, [episode.segments.at(start) for start in starts]


def _means(by_set: Mapping[str, Sequence[Likeness]]) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: {
            "pk": round(fmean(one.pk for one in found), 4),
            "window_diff": round(fmean(one.window_diff for one in found), 4),
            "chapters_per_human": round(math.exp(fmean(math.log(one.share) for one in found)), 2),
        }
        for name, found in by_set.items()
    }
    return {"mean": round(fmean((one["pk"] + one["window_diff"]) / 2 for one in row.values()), 4), **row}


def measure(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """One half of both sets."""
    encoder = load_encoder("bootstrap-minilm-l6", threads=1)
    sets = {
        name: list(encoded(encoder, chosen(arguments.data, name, not arguments.tune, arguments.limit), arguments.cache))
        for name in SETS
    }
    counts = {name: len(some) for name, some in sets.items()}
    if arguments.tune:
        return {"episodes": counts, "tuning": tuned(sets, encoder)}
    found: dict[str, Any] = {}
    for name, some in sets.items():
        found[name] = held_out(encoder, some)
        for way, figures in found[name].items():
            print(name, way, figures, flush=True)
    ratios = {
        name: {
            way: {error: round(rows["tiling"][error] / rows[way][error], 3) for error in ("pk", "window_diff")}
            for way in ("TextTiling", "TextTiling, as many chapters")
        }
        for name, rows in found.items()
    }
    return {"episodes": counts, "held_out": found, "tiling_over_texttiling": ratios}


def main(given: list[str] | None = None) -> None:
    parser = command_line("chapters", __doc__ or "")
    parser.add_argument("data", type=Path, help="the folder that holds chapters/syntax_fm.jsonl.gz and its neighbour")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keeps the vectors of blocks")
    parser.add_argument("--limit", type=int, help="so many episodes of each set, in an order by hash")
    parser.add_argument("--tune", action="store_true", help="compare parameters on the tuning half")
    run("chapters", parser, measure, given)


if __name__ == "__main__":
    main()
