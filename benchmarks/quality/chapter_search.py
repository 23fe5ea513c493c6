"""Search in talk with and without chapters, through the API: the right episode, and the right minute of it.

    python -m benchmarks chapter_search ../shared/data --json FILE

The result is written to FILE. The committed results are benchmarks/results/chapter-search-*.json, a file for each set.

Queries are titles of chapters from the notes of held-out episodes, which are not indexed, without titles that name no
subject; and judged meetings for whole documents. The same texts are indexed without chapters (`plain`, and with the
best passage in lexical search), with an engine's chapters (`chapters`), with titles, best chapter or best passage in
lexical search (`... in lexical search`), and with titles encoded before each window (`titles in vectors`)
(docs/decisions/0195).

NDCG@10 and MRR@10 rank documents: the first chapter or passage of each document counts. `first` is the share of queries
whose first hit begins in the query's chapter. Among queries whose document is found, `opened` is that share for its
best hit, and `inside` the part of the hit within the chapter.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import httpx
import uvloop

from benchmarks.collections import DocumentWindows
from benchmarks.ingest.talk import ChapteringById, encode_talk_windows, fill_talk_index, make_chapters
from benchmarks.measuring import make_parser, run_benchmark
from benchmarks.quality.chapters import ChapterTarget, TalkSet, read_episode_set, read_meeting_set
from benchmarks.service import open_node, read_opensearch_version
from cli.relevance.metrics import measure_rankings
from indexer.runtime import load_chapter_maker
from models.registry import load_encoder
from query_api.app import create_app
from services.index_spec import TalkSettings
from services.settings import Settings
from services.talk.model import Chaptering

MODES = ("sparse", "lexical", "hybrid")
LEXICAL_FACTOR = 0.5  # weight of titles, best chapter and best passage in lexical search
# Number of requested chapters or passages. They belong to more than ten documents.
MAX_UNITS = 60
EPISODE_SETS = "syntax_fm/50,bitcoin_transcripts/70"
HitMembers = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IndexingSide:
    """Way to index, and the units and modes that are searched."""

    name: str
    talk: TalkSettings
    units: Sequence[str] = ("document",)
    modes: Sequence[str] = MODES

    @property
    def index(self) -> str:
        """Return the name of the index."""
        return self.name.replace(" ", "-").replace(".", "-").replace(",", "")


def chapter_search(argv: list[str] | None = None) -> None:
    """Measure NDCG@10 of talk with and without chapters, and whether hits open the right minute."""
    parser = make_parser("chapter_search", chapter_search.__doc__)
    parser.add_argument("data", type=Path, help="folder of `chapters` and `collections`")
    parser.add_argument("--episodes", default=EPISODE_SETS, help="sets, each with /N for at most N episodes")
    parser.add_argument("--meetings", type=int, default=6, help="every n-th judged meeting; 0: none")
    parser.add_argument("--queries", type=int, default=150, help="queries of each set, at most")
    parser.add_argument("--left-out", default="", help="name of a side to skip")
    parser.add_argument("--engine", default="tiling")
    parser.add_argument("--encoder", default="projected-minilm-l6")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="keep vectors and chapters there")
    run_benchmark("chapter_search", parser, measure_chapter_search, argv)


def _parse_sizes(text: str) -> Iterator[tuple[str, int]]:
    for item in text.split(","):
        name, _, limit = item.partition("/")
        yield name, int(limit or 10**6)


def measure_chapter_search(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Index each set as documents and as chapters; return the figures of the searches by set."""
    encoder = load_encoder(arguments.encoder, threads=arguments.threads)
    named = _parse_sizes(arguments.episodes) if arguments.episodes else ()
    sets = [read_episode_set(arguments.data / "chapters" / f"{name}.jsonl.gz", limit) for name, limit in named]
    if arguments.meetings:
        sets.append(read_meeting_set(arguments.data / "collections" / "qmsum_meetings", arguments.meetings))
    sets = [talks.limit_queries(arguments.queries) for talks in sets]
    settings = Settings(encoder=arguments.encoder)
    maker = load_chapter_maker(settings, arguments.engine, encoder)
    chapters = [make_chapters(talks.name, talks.documents, maker, arguments.engine, arguments.cache) for talks in sets]
    encoded = [
        {
            side.name: encode_talk_windows(
                talks.name,
                talks.documents,
                _side_chapters(side, talks, chapters_by_id),
                side.talk,
                encoder,
                arguments.cache,
            )
            for side in list_sides(arguments.engine, arguments.left_out)
        }
        for talks, chapters_by_id in zip(sets, chapters, strict=True)
    ]
    figures: dict[str, Any] = {"engine": {"name": arguments.engine, "fingerprint": maker.fingerprint}}
    with open_node() as node:
        for number, (talks, chapters_by_id, windows) in enumerate(zip(sets, chapters, encoded, strict=True)):
            # A generous timeout, because latency is not measured.
            overrides = {
                "encoder": arguments.encoder,
                "index_prefix": f"{node.index_prefix}{number}",
                "search_timeout": 60.0,
            }
            compared = list_sides(arguments.engine, arguments.left_out)
            figures[talks.name] = _measure_set(
                talks, node.model_copy(update=overrides), chapters_by_id, windows, compared
            )
        figures["opensearch"] = read_opensearch_version(node)
    return figures


def _measure_set(
    talks: TalkSet,
    settings: Settings,
    chapters_by_id: ChapteringById,
    windows: Mapping[str, DocumentWindows],
    compared: Sequence[IndexingSide],
) -> dict[str, Any]:
    rows: dict[str, Any] = {
        "documents": len(talks.documents),
        "queries": len(talks.queries),
        "chapters_of_a_document": round(fmean(len(chaptering.chapters) for chaptering in chapters_by_id.values()), 1),
    }
    for side in compared:
        fill_talk_index(
            side.index,
            talks.documents,
            _side_chapters(side, talks, chapters_by_id),
            windows[side.name],
            side.talk,
            settings,
        )
        rows[side.name] = uvloop.run(measure_side(settings, talks, side))
    return rows


def _side_chapters(side: IndexingSide, talks: TalkSet, chapters_by_id: ChapteringById) -> ChapteringById:
    return (
        {document.id: Chaptering("none") for document in talks.documents}
        if side.talk.chapters == "none"
        else chapters_by_id
    )


def list_sides(engine: str, left_out: str = "") -> list[IndexingSide]:
    """Return the compared sides."""
    return [side for side in _iter_sides(engine) if side.name != left_out]


def _iter_sides(engine: str) -> Iterator[IndexingSide]:
    """Yield the sides; the first has the text without chapters."""
    nothing = {"passage_in_lexical": 0}
    chapters = TalkSettings.model_validate({"chapters": engine} | nothing)
    yield IndexingSide("plain", TalkSettings.model_validate({"chapters": "none"} | nothing), ("document", "passage"))
    lexical = TalkSettings.model_validate({"chapters": "none", "passage_in_lexical": LEXICAL_FACTOR})
    yield IndexingSide("plain, passage in lexical search", lexical, modes=("lexical", "hybrid"))
    yield IndexingSide("chapters", chapters, ("document", "chapter", "passage"))
    for fields in (["titles"], ["chapter"], ["passage"], ["chapter", "passage"]):
        talk = chapters.model_copy(update={f"{field}_in_lexical": LEXICAL_FACTOR for field in fields})
        yield IndexingSide(f"{' and '.join(fields)} in lexical search", talk, modes=("lexical", "hybrid"))
    vectors = chapters.model_copy(update={"titles_in_vectors": True})
    yield IndexingSide("titles in vectors", vectors, ("document", "chapter"), ("sparse", "hybrid"))


async def measure_side(settings: Settings, talks: TalkSet, side: IndexingSide) -> dict[str, Any]:
    """Return the figures of one side."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    rows: dict[str, Any] = {}
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://api") as api:
        for unit in side.units:
            for mode in side.modes:
                results = {
                    query: await search_hits(api, side.index, text, mode, unit) for query, text in talks.queries.items()
                }
                mean = measure_rankings(
                    talks.judgements, {query: rank_documents(hits) for query, hits in results.items()}
                ).mean
                row: dict[str, Any] = {name: round(mean[name], 4) for name in ("ndcg@10", "mrr@10")}
                if talks.targets:
                    row |= score_positions(results, talks.targets, unit)
                rows.setdefault(unit, {})[mode] = row
                print(f"{talks.name}  {side.name:24} {unit:9} {mode:8} {row}", flush=True)
    return rows


async def search_hits(api: httpx.AsyncClient, index: str, query: str, mode: str, unit: str) -> list[HitMembers]:
    """Search an index through the API and return its hits."""
    size = 10 if unit == "document" else MAX_UNITS
    body = {"query": query, "mode": mode, "unit": unit, "size": size, "fields": [], "candidates": 100}
    answer = await api.post(f"/v1/indexes/{index}/search", json=body)
    hits: list[HitMembers] = answer.raise_for_status().json()["hits"]
    return hits


def rank_documents(hits: Sequence[HitMembers]) -> list[tuple[str, float]]:
    """Rank documents by their best chapter or passage."""
    best: dict[str, float] = {}
    for hit in hits:
        best.setdefault(hit["id"], hit["score"])
    return list(best.items())


def score_positions(
    hits: Mapping[str, Sequence[HitMembers]], targets: Mapping[str, ChapterTarget], unit: str
) -> dict[str, Any]:
    """Return how often hits begin in the chapter of the query."""
    first, opened, inside, off = [], [], [], []
    for query, target in targets.items():
        hit = next((hit for hit in hits[query] if hit["id"] == target.document), None)
        first.append(hit is not None and hit is hits[query][0] and _is_in_chapter(hit, target, unit))
        if hit is None:
            continue
        start, end, second = locate_hit(hit, unit)
        opened.append(_is_in_chapter(hit, target, unit))
        inside.append(max(0, min(end, target.end) - max(start, target.start)) / max(1, end - start))
        if second is not None and target.second is not None:
            off.append(abs(second - target.second))
    rows = {"first": round(fmean(first), 4), "opened": round(fmean(opened), 4), "inside": round(fmean(inside), 4)}
    # Some transcripts without times have a few; they do not count.
    return rows | ({"median_seconds_off": round(median(off), 1)} if len(off) > len(targets) / 2 else {})


def _is_in_chapter(hit: HitMembers, target: ChapterTarget, unit: str) -> bool:
    return target.start <= locate_hit(hit, unit)[0] < target.end


def locate_hit(hit: HitMembers, unit: str) -> tuple[int, int, float | None]:
    """Return the characters of a hit, and its start time."""
    found = hit["chapter"] if unit == "chapter" else hit["passage"]
    return found["start"], found["end"], found.get("start_time")
