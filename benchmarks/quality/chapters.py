"""Quality of chapters: the engine tiling and baselines beside chapters that people made, on two sets.

    python -m benchmarks chapters ../shared/data --cache DIR --json benchmarks/results/chapters.json
    python -m benchmarks chapters ../shared/data --cache DIR --tune --json benchmarks/results/chapters-tuning.json

The first form measures on the held-out half of the episodes (by id). --tune compares parameters on the other half:
price and cues of the engine; reach, smoothing and cut-off of TextTiling; and the length of equal chapters. Each method
is reported with the parameters that have the best mean of Pk and WindowDiff over both sets (docs/decisions/0194).

`read_episode_set` and `read_meeting_set` make talk to search in: episodes whose chapter titles are the queries, and
judged meetings.
"""

import argparse
import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.collections import sample_collection
from benchmarks.measuring import make_parser, run_benchmark
from benchmarks.quality.chapter_cues import EncodedEpisode, encode_episodes
from cli.relevance import segmentation
from cli.relevance.segmentation import (
    ChapteringMethod,
    MethodResults,
    SegmentationScores,
    compare_methods,
    make_division_method,
    make_title_method,
    score_segmentation,
)
from cli.relevance.title_comparison import TitleSimilarity
from models.chapters.engine import AnnotatedEpisode, ProposedChapter, read_episodes
from models.chapters.maker import accept_proposals
from models.chapters.texttiling import BoundaryCues, TextTilingEngine
from models.chapters.titles import phrase_titles
from models.encoder import Encoder
from models.judged_collection import Judgements, open_collection
from models.registry import load_encoder
from services.documents.document import Document, parse_document
from services.index_spec import IndexSpec
from services.talk.model import Talk

EPISODE_SETS = ("syntax_fm", "bitcoin_transcripts")
NLTK_EPISODES = 20  # NLTK's TextTiling takes as long for one episode as all other methods together
NO_CUES = BoundaryCues({}, {}, {}, 0.0)
MAX_QUERY_WORDS = 12  # longer titles are questions that were read out
# Titles without a subject: parts of every show, and sponsors.
_GENERIC_TITLE = re.compile(
    r"\b(intro(duction)?s?|outro|conclusions?|summary|agenda|outline|overview|background|references|disclaimer|demo"
    r"|history|future work|next steps|questions?|answers?|q ?& ?a|q/a|sponsors?|ads?|sick picks?|shameless|plugs?"
    r"|thanks?|thank you|welcome|closing|wrap(ping)?[ -]?up|final thoughts|individual updates|cont|continued|misc\w*"
    r"|other|part \d+)\b",
    re.I,
)
_WORD = re.compile(r"[A-Za-z]{3,}")


def chapters(argv: list[str] | None = None) -> None:
    """Compare the chapters of the engine tiling and of baselines with human chapters."""
    parser = make_parser("chapters", chapters.__doc__)
    parser.add_argument("data", type=Path, help="folder of chapters/*.jsonl.gz")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep the vectors of blocks there")
    parser.add_argument("--limit", type=int, help="episodes of each set, in an order by hash")
    parser.add_argument("--tune", action="store_true", help="compare parameters on the tuning half")
    run_benchmark("chapters", parser, measure_chapters, argv)


def measure_chapters(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Measure one half of both sets."""
    encoder = load_encoder("projected-minilm-l6", threads=1)
    sets = {
        name: list(
            encode_episodes(
                encoder, choose_episodes(arguments.data, name, not arguments.tune, arguments.limit), arguments.cache
            )
        )
        for name in EPISODE_SETS
    }
    counts = {name: len(episodes) for name, episodes in sets.items()}
    if arguments.tune:
        return {"episodes": counts, "tuning": tune_parameters(sets, encoder)}
    results: dict[str, Any] = {}
    for name, episodes in sets.items():
        results[name] = measure_held_out(encoder, episodes)
        for way, figures in results[name].items():
            print(name, way, figures, flush=True)
    ratios = {
        name: {
            way: {error: round(rows["tiling"][error] / rows[way][error], 3) for error in ("pk", "window_diff")}
            for way in ("TextTiling", "TextTiling, as many chapters")
        }
        for name, rows in results.items()
    }
    return {"episodes": counts, "held_out": results, "tiling_over_texttiling": ratios}


def choose_episodes(data: Path, name: str, held_out: bool, limit: int | None) -> list[AnnotatedEpisode]:
    """Return episodes of one half of a set, the first ones in an order by hash."""
    results = [
        episode for episode in read_episodes(data / "chapters" / f"{name}.jsonl.gz") if episode.held_out is held_out
    ]
    return sorted(results, key=lambda episode: hashlib.sha256(episode.id.encode()).digest())[:limit]


def measure_held_out(encoder: Encoder, episodes: Iterable[EncodedEpisode]) -> dict[str, dict[str, Any]]:
    """Return the figures of every method on the same episodes, without times, because vectors are cached."""
    by_id = {encoded.annotated.id: encoded for encoded in episodes}

    def tiling(engine: TextTilingEngine) -> ChapteringMethod:
        def way(annotated: AnnotatedEpisode) -> Any:
            encoded = by_id[annotated.id]
            starts = engine.boundaries(annotated.episode, encoded.cut, encoded.vectors)
            return accept_proposals(
                annotated.episode, [ProposedChapter(0), *map(ProposedChapter, starts)], phrase_titles
            )

        return way

    ways: dict[str, ChapteringMethod] = {
        "one chapter": make_division_method(segmentation.divide_not_at_all),
        "equal lengths": make_division_method(segmentation.divide_equally),
        "chance": make_division_method(segmentation.divide_randomly),
        "TextTiling, as many chapters": make_division_method(
            lambda episode: segmentation.divide_by_texttiling(episode, reach=10, rounds=1, above=2.0)
        ),
        "TextTiling": make_division_method(segmentation.divide_by_texttiling),
        "tiling without cues": tiling(TextTilingEngine(encoder, cues=NO_CUES)),
        "tiling": tiling(TextTilingEngine(encoder)),
        "tiling: titles": make_title_method(lambda _, starts: list(map(ProposedChapter, starts))),
    }
    annotated = [encoded.annotated for encoded in by_id.values()]
    results_by_method = compare_methods(ways, annotated) | compare_methods(
        {"TextTiling (NLTK)": make_division_method(segmentation.divide_by_nltk)}, annotated[:NLTK_EPISODES]
    )
    titles = TitleSimilarity(encoder)
    return {name: _without_times(results).figures(titles) for name, results in results_by_method.items()}


def _without_times(results: MethodResults) -> MethodResults:
    results.hours = 0.0
    return results


def tune_parameters(sets: Mapping[str, Sequence[EncodedEpisode]], encoder: Encoder) -> dict[str, list[dict[str, Any]]]:
    """Return, by method, its parameters with Pk, WindowDiff and chapters per human one on each set, best first."""
    scores_of: dict[tuple[str, str], dict[str, list[SegmentationScores]]] = defaultdict(lambda: defaultdict(list))
    for name, episodes in sets.items():
        for encoded in episodes:
            at = encoded.annotated.episode.segments.at
            human = [at(chapter.start) for chapter in encoded.annotated.chapters]
            for way, parameters, starts in _iter_parameters(encoded, encoder):
                scores = score_segmentation(human, starts, len(encoded.annotated.episode.segments))
                if scores is not None:
                    scores_of[way, json.dumps(parameters)][name].append(scores)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (way, tried_with), by_set in scores_of.items():
        rows[way].append(json.loads(tried_with) | _mean_scores(by_set))
    for way, tried in rows.items():
        tried.sort(key=lambda row: float(row["mean"]))
        for row in tried[:3]:
            print(f"{way}: {row}", flush=True)
    return dict(rows)


def _iter_parameters(
    encoded: EncodedEpisode, encoder: Encoder
) -> Iterator[tuple[str, dict[str, float], Sequence[int]]]:
    episode = encoded.annotated.episode
    for words in (300, 600, 1200, 2000, 4000, 8000):
        yield "equal lengths", {"words": words}, segmentation.divide_equally(episode, words)
    counts = segmentation.count_block_words(episode, encoded.cut)
    for reach, rounds, above in product((4, 6, 10, 16, 24), (1, 3), (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)):
        boundaries = segmentation.find_valleys(episode, encoded.cut, counts, reach=reach, rounds=rounds, above=above)
        yield "TextTiling", {"reach": reach, "rounds": rounds, "above": above}, boundaries
    for price, cue in (
        (0.045, 0.01),
        (0.05, 0.01),
        (0.055, 0.01),
        (0.06, 0.01),
        (0.07, 0.01),
        (0.055, 0.005),
        (0.055, 0),
    ):
        starts = TextTilingEngine(encoder, penalty=price, cue_weight=cue).boundaries(
            episode, encoded.cut, encoded.vectors
        )
        yield "tiling", {"price": price, "cue": cue}, [episode.segments.at(start) for start in starts]


def _mean_scores(by_set: Mapping[str, Sequence[SegmentationScores]]) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: {
            "pk": round(fmean(scores.pk for scores in results), 4),
            "window_diff": round(fmean(scores.window_diff for scores in results), 4),
            "chapters_per_human": round(math.exp(fmean(math.log(scores.share) for scores in results)), 2),
        }
        for name, results in by_set.items()
    }
    return {"mean": round(fmean((means["pk"] + means["window_diff"]) / 2 for means in row.values()), 4), **row}


@dataclass(frozen=True, slots=True)
class ChapterTarget:
    """Chapter whose title is a query: characters of a document's text, and its start time."""

    document: str
    start: int
    end: int
    second: float | None


@dataclass(frozen=True, slots=True)
class TalkSet:
    """Documents, queries and judgements; `targets` where a query asks for a chapter."""

    name: str
    documents: Sequence[Document]
    queries: dict[str, str]
    judgements: Judgements
    targets: dict[str, ChapterTarget] = field(default_factory=dict)

    def limit_queries(self, limit: int) -> "TalkSet":
        """Return the set with at most `limit` of its queries, in an order by hash."""
        kept = sorted(self.judgements, key=_hash_identifier)[:limit]
        targets = {query: self.targets[query] for query in kept if query in self.targets}
        return replace(
            self,
            queries={query: self.queries[query] for query in kept},
            judgements={query: self.judgements[query] for query in kept},
            targets=targets,
        )


def read_episode_set(path: Path, limit: int) -> TalkSet:
    """Return at most `limit` held-out episodes, in an order by hash.

    Title and transcript are indexed. The show's notes, which give the queries, are not.
    """
    name = path.name.partition(".")[0]
    held_out = sorted(
        (annotated for annotated in read_episodes(path) if annotated.held_out),
        key=lambda annotated: _hash_identifier(annotated.id),
    )
    chosen = held_out[:limit]
    documents = [
        Document(annotated.id, annotated.episode.text, annotated.episode.title, talk=Talk(annotated.episode.segments))
        for annotated in chosen
    ]
    queries = dict(_iter_queries(chosen))
    return TalkSet(
        name,
        documents,
        {query: text for query, (text, _) in queries.items()},
        {query: {target.document: 1} for query, (_, target) in queries.items()},
        {query: target for query, (_, target) in queries.items()},
    )


def _iter_queries(chosen: Iterable[AnnotatedEpisode]) -> Iterator[tuple[str, tuple[str, ChapterTarget]]]:
    """Yield chapter titles that name a subject, have two words or more, and are in one episode only."""
    episodes = list(chosen)
    counts = Counter(
        title for annotated in episodes for title in {_plain_title(chapter.title) for chapter in annotated.chapters}
    )
    for annotated in episodes:
        ends = [*(chapter.start for chapter in annotated.chapters[1:]), len(annotated.episode.text)]
        for number, (chapter, end) in enumerate(zip(annotated.chapters, ends, strict=True)):
            title = chapter.title
            if (
                not 2 <= len(_WORD.findall(title)) <= MAX_QUERY_WORDS
                or _GENERIC_TITLE.search(title)
                or counts[_plain_title(title)] > 1
            ):
                continue
            second = annotated.episode.segments.second_at(chapter.start)
            yield f"{annotated.id} {number}", (title, ChapterTarget(annotated.id, chapter.start, end, second))


def read_meeting_set(directory: Path, every: int) -> TalkSet:
    """Return every n-th judged meeting, its lines as paragraphs."""
    collection = sample_collection(open_collection(directory), every)
    spec = IndexSpec.model_validate({"talk": {}})
    documents = [parse_document(document.as_json() | {"kind": "talk"}, spec) for document in collection.documents()]
    return TalkSet(collection.name, documents, dict(collection.judged), collection.known_judgements())


def _plain_title(title: str) -> str:
    return " ".join(re.findall(r"\w+", title.lower()))


def _hash_identifier(identifier: str) -> str:
    return hashlib.sha256(identifier.encode()).hexdigest()
