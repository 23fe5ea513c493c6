"""Judged collections with what measuring a ranking needs: exact sparse scores, and keyword lists from a real node."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.collection_vectors import collection_vectors
from benchmarks.keyword_lists import keyword_lists
from benchmarks.record import command_line
from benchmarks.sample import sampled
from benchmarks.stdlib_collection import stdlib_collection
from cli.relevance.collection import Collection, Judgements, open_collection
from cli.relevance.exact import ExactIndex
from cli.relevance.metrics import Rankings
from models.encoder import Encoder
from services.opensearch.client import SyncSearch
from services.settings import Settings

COLLECTIONS = ("adi", "cisi", "cosqa", "cranfield", "medline", "qmsum_meetings/4")
# The demo's questions about Python's documentation: measured, and without a part in any choice, so that they stay a
# fair witness.
DEMO = "stdlib"
CANDIDATES = 100


@dataclass(frozen=True)
class Judged:
    """A collection: its judged queries, the postings of its vectors, and the keyword list of each query."""

    name: str
    judgements: Judgements
    queries: dict[str, str]
    index: ExactIndex
    lexical: Rankings


def arguments(name: str, described: str) -> argparse.ArgumentParser:
    """The command line of a benchmark over judged collections."""
    parser = command_line(name, described)
    parser.add_argument("data", type=Path, help="directory of collections")
    parser.add_argument("--collections", default=",".join(COLLECTIONS), help="names, each with /N for one in N")
    parser.add_argument("--encoder", default="bootstrap-minilm-l6")
    parser.add_argument("--threads", type=int, default=0, help="threads of the encoder; 0: all cores")
    parser.add_argument("--cache", type=Path, help="where vectors are kept for the next run")
    return parser


def judged_collections(given: argparse.Namespace, encoder: Encoder, settings: Settings) -> Iterator[Judged]:
    """The collections that were asked for, then the demo's. `NAME/4` takes every fourth document only."""
    with closing(SyncSearch(settings)) as search:
        for wanted in given.collections.split(","):
            name, _, every = wanted.partition("/")
            collection = sampled(open_collection(given.data / name), int(every or 1))
            yield _judged(wanted, collection, encoder, search, settings, given.cache)
        with tempfile.TemporaryDirectory(prefix="sparsewell-") as folder:
            collection = stdlib_collection((given.cache or Path(folder)) / DEMO)
            yield _judged(DEMO, collection, encoder, search, settings, given.cache)


def _judged(
    name: str, collection: Collection, encoder: Encoder, search: SyncSearch, settings: Settings, cache: Path | None
) -> Judged:
    return Judged(
        name,
        collection.known_judgements(),
        dict(collection.judged),
        ExactIndex(collection_vectors(collection, encoder, cache)),
        keyword_lists(search, settings, collection, CANDIDATES),
    )
