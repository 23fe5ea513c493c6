"""Pairs of a corpus without queries, and the held-out queries that an encoder for it is compared on.

`prepare_corpus` makes the pairs (`models.training.own.pairs`) and holds out a tenth of them, at most 500. A held-out
query shares no query and no passage with the other pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path

import numpy as np

from models.judged_queries import JudgedQueries
from models.progress import ProgressReporter
from models.training.own.pairs import PairOptions, corpus_name, find_corpus_file, make_own_pairs, read_corpus
from models.training.pairs import PairSet, PairSplit, join_pair_sets, split_pairs
from models.training.storage import ReadReport
from services.documents.document import Document

_MOST_HELD_OUT = 500
PairGenerator = Callable[[PairSet], PairSet]


@dataclass(frozen=True)
class CorpusOptions:
    """Options of both methods of `sparsewell train own`.

    `judgements` is a judged collection in BEIR layout, which is reported and never chooses. `more` adds pairs, for
    instance generated questions. `among` is the number of passages that a held-out query is ranked against.
    """

    start: str
    _: KW_ONLY
    judgements: Path | None = None
    among: int = 5000
    seed: int = 0
    pairs: PairOptions = field(default_factory=lambda: PairOptions(passage_words=100))
    more: PairGenerator | None = None


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus and its pairs.

    `name` is the corpus's, `pairs` are all pairs, `split` has both sides, `sources` the number of each passage's
    document.
    """

    name: str
    documents: Sequence[Document]
    pairs: PairSet
    split: PairSplit
    sources: Mapping[str, int]

    def training_documents(self) -> list[Document]:
        """Return the documents of which no passage is held out."""
        held_out = {self.sources.get(passage) for passage in self.split.held_out.passages}
        return [document for number, document in enumerate(self.documents) if number not in held_out]


def prepare_corpus(corpus: Path, options: CorpusOptions, show: ProgressReporter) -> PreparedCorpus:
    """Read a corpus, make its pairs and split them.

    Raises InvalidInput (`no_documents`, `corpus_too_small`, `bad_split`) and ConfigurationError (`corpus_not_found`).
    """
    report = ReadReport(str(find_corpus_file(corpus)))
    documents = list(read_corpus(corpus, report))
    if report.refused:
        refused = f"{sum(report.refused.values()):,} of {report.lines:,} lines left out"
        show.report(f"{refused}: {'; '.join(report.examples)}")
    sources: dict[str, int] = {}
    pairs = make_own_pairs(documents, options.pairs, sources)
    if options.more is not None:
        pairs = join_pair_sets([pairs, options.more(pairs)])
    split = split_pairs(pairs, 0.1, options.seed, most=_MOST_HELD_OUT)
    show.report(f"{len(documents):,} documents, {len(pairs):,} pairs, {len(split.held_out):,} of them held out.")
    return PreparedCorpus(corpus_name(corpus), documents, pairs, split, sources)


def held_out_queries(split: PairSplit, among: int, seed: int) -> JudgedQueries:
    """Return the held-out queries, to be ranked among their own passages and other passages, `among` in all."""
    own = JudgedQueries.held_out(split.held_out)
    known = set(own.documents)
    others = [text for text in split.train.passages if text not in known]
    documents = own.documents + draw_texts(others, max(0, among - len(own.documents)), seed)
    return JudgedQueries(own.name, documents, own.queries, own.grades)


def draw_texts(texts: Iterable[str], most: int, seed: int) -> list[str]:
    """Return at most `most` of the distinct texts, drawn at random, in their order."""
    distinct = list(dict.fromkeys(texts))
    if len(distinct) <= most:
        return distinct
    drawn = np.random.default_rng(seed).permutation(len(distinct))[:most]
    return [distinct[position] for position in np.sort(drawn)]


def split_held_out(judged: JudgedQueries) -> tuple[JudgedQueries, JudgedQueries]:
    """Split the held-out queries: the first half chooses the best checkpoint, the second is reported.

    The best of several checkpoints by the reported queries would look better than the start by chance. A passage's
    queries stay together, unless all queries have the same passage.
    """
    firsts = [min(grades) for grades in judged.grades]
    places = {first: number % 2 for number, first in enumerate(sorted(set(firsts)))}
    sides = [places[first] for first in firsts] if len(places) > 1 else [number % 2 for number in range(len(firsts))]
    if len(set(sides)) < 2:
        return judged, judged
    choosing, reporting = (
        replace(
            judged,
            queries=[query for query, query_side in zip(judged.queries, sides, strict=True) if query_side == side],
            grades=[grades for grades, query_side in zip(judged.grades, sides, strict=True) if query_side == side],
        )
        for side in (0, 1)
    )
    return choosing, reporting


def reduce_documents(judged: JudgedQueries, documents: int) -> JudgedQueries:
    """Keep the held-out passages, which come first, and fewer others, for the learning curve."""
    needed = 1 + max((place for grades in judged.grades for place in grades), default=0)
    return JudgedQueries(judged.name, judged.documents[: max(documents, needed)], judged.queries, judged.grades)
