"""A talk on its way through a worker: seconds for its chapters and for all, and the memory of the process.

    python -m benchmarks.talk_encoding ../shared/data --json benchmarks/results/talk-encoding.json

Talks of so many hours are put together out of a show's episodes (10,000 words an hour), journalled in an index that
makes chapters, and encoded by the worker's task, each in a process of its own.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.chapter_sets import episodes
from benchmarks.filled_index import create, journal
from benchmarks.record import command_line, run
from benchmarks.service import node_settings, opensearch_version
from indexer.chaptering import Maker
from indexer.encode_task import run_encode
from indexer.runtime import Runtime, load_chapter_maker
from indexer.settings import WorkerSettings
from models.encoder import Encoder
from services.contracts import EncodeMessage
from services.documents import Document
from services.errors import BackendUnavailable
from services.index_spec import IndexSpec
from services.opensearch.client import SyncSearch
from services.opensearch.journal import read_many, read_many_call
from services.settings import Settings
from services.talk.segments import Segments
from services.talk.talk import Talk

WORDS_AN_HOUR = 10_000
SPEC = IndexSpec.model_validate({"talk": {}})


def long_talk(data: Path, hours: float) -> Document:
    """One document out of as many episodes as it takes; times are not needed."""
    texts: list[str] = []
    offsets: list[int] = []
    words, at = 0, 0
    for document in episodes(data / "chapters" / "syntax_fm.jsonl.gz", 1000).documents:
        talk = document.talk or Talk(Segments((0,), (-1,), (-1,), (-1,)))
        ends = [*talk.segments.offsets[1:], len(document.text)]
        for start, end in zip(talk.segments.offsets, ends, strict=True):
            if words >= hours * WORDS_AN_HOUR:
                break
            said = document.text[start:end].strip() + " "
            texts.append(said)
            offsets.append(at)
            words, at = words + len(said.split()), at + len(said)
    if words < hours * WORDS_AN_HOUR:
        raise BackendUnavailable("too_few_texts", f"There are {words:,} words; {hours:g} hours have more.")
    unknown = [-1] * len(offsets)
    return Document("talk", "".join(texts), "A talk", talk=Talk(Segments(offsets, unknown, unknown, unknown)))


class Timed:
    """A maker of chapters that knows how long it took."""

    def __init__(self, maker: Maker) -> None:
        self._maker, self.seconds = maker, 0.0

    @property
    def fingerprint(self) -> str:
        return self._maker.fingerprint

    def chapters(self, *of: Any) -> Any:
        begun = time.perf_counter()
        try:
            return self._maker.chapters(*of)
        finally:
            self.seconds = time.perf_counter() - begun


def worked(settings: Settings, connection: Connection) -> None:
    """In a process of its own: encodes the talk and tells what it took."""
    made: list[Timed] = []

    def timed(*of: Any) -> Maker:
        made.append(Timed(load_chapter_maker(*of)))
        return made[0]

    runtime = Runtime(settings, WorkerSettings(), load_maker=timed)
    encoder: Encoder = runtime.encoder
    encoder.encode(encoder.windows("a first run"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    counts = run_encode(runtime, EncodeMessage(index="talks", ids=("talk",)), redelivered=False)
    took = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection.send(
        {
            "counts": counts,
            "seconds": round(took, 2),
            "seconds_of_chapters": round(made[0].seconds, 2),
            "peak_mib": round(peak / 1024, 1),
            "peak_mib_before": round(before / 1024, 1),
        }
    )


def measured(given: argparse.Namespace) -> Mapping[str, Any]:
    figures: dict[str, Any] = {}
    with node_settings() as base:
        for number, hours in enumerate(map(float, given.hours.split(","))):
            own = {
                "encoder": given.encoder,
                "worker_threads": given.threads,
                "index_prefix": f"{base.index_prefix}{number}",
            }
            settings = base.model_copy(update=own)
            figures[f"{hours:g} hours"] = row = dict(_of(settings, long_talk(given.data, hours)))
            print(f"{hours:g} hours: {row}", flush=True)
        figures["opensearch"] = opensearch_version(base)
    return figures


def _of(settings: Settings, document: Document) -> Iterator[tuple[str, Any]]:
    yield "words", len(document.text.split())
    with closing(SyncSearch(settings)) as search:
        generation = create(search, settings, "talks", SPEC)
        journal(search, settings, generation, [document])
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        child = multiprocessing.get_context("spawn").Process(target=worked, args=(settings, theirs))
        child.start()
        theirs.close()
        yield from ours.recv().items()
        child.join()
        (stored,) = read_many(search.send(replace(read_many_call(generation.physical, ["talk"]), params={})))
        yield "windows", len(stored.source["windows"])
        yield "chapters", len(stored.source["chapters"])


def main(given: list[str] | None = None) -> None:
    parser = command_line("talk_encoding", __doc__ or "")
    parser.add_argument("data", type=Path, help="directory with `chapters`")
    parser.add_argument("--hours", default="1,10")
    parser.add_argument("--encoder", default="bootstrap-minilm-l6")
    parser.add_argument("--threads", type=int, default=2)
    run("talk_encoding", parser, measured, given)


if __name__ == "__main__":
    main()
