"""Command `sparsewell train own` for a projected encoder: its projection, refitted to a corpus in minutes.

`refit_own_encoder` makes pairs from the corpus, holds some out (`models.training.own.held_out`), refits the encoder to
titles, headings and sentences of the others (`models.projection.refit`), and compares it with the start on all held-out
queries. Nothing is chosen by these queries. No GPU and no PyTorch are needed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.export.collection import read_collection
from models.export.throughput import cpu_name
from models.progress import ProgressReporter, SilentReporter, StageTimer
from models.projection.refit import refit_encoder
from models.training.judged_queries import JudgedQueries
from models.training.own.comparison import NEW, OLD, compare_tables, compare_with_start
from models.training.own.held_out import PairGenerator, held_out_queries, prepare_corpus
from models.training.own.pairs import PairKind, PairOptions
from models.training.own.report import write_report
from models.training.own.sections import split_sentences
from models.training.pairs import PairSet
from models.training.run_directory import checked_encoder_name, hold_run_directory
from services.encoders.manifest import read_manifest, resolve_model_directory

# Pairs of these kinds have a query that is cut out of a passage and lost its function words; the passage has it whole.
_CUT_KINDS = frozenset({PairKind.INVERSE_CLOZE, PairKind.BODY_FIRST, PairKind.KEYWORDS})
_LEAST_WORDS, _MOST_WORDS = 4, 30


@dataclass(frozen=True)
class RefitOptions:
    """Options of a refit.

    `queries` is the most texts of the corpus that the table is fitted to. `judgements` is a judged collection in BEIR
    layout, which is reported. `more` adds pairs, for instance generated questions. `among` is the number of passages
    that a held-out query is ranked against.
    """

    start: str
    queries: int = 20_000
    judgements: Path | None = None
    among: int = 5000
    seed: int = 0
    pairs: PairOptions = field(default_factory=lambda: PairOptions(passage_words=100))
    more: PairGenerator | None = None


def refit_own_encoder(
    corpus: Path, out: Path, options: RefitOptions, *, name: str, show: ProgressReporter | None = None
) -> Path:
    """Refit the start to a corpus, compare on held-out queries, write the report. Return the model directory OUT/NAME.

    Raises InvalidInput (`no_documents`, `corpus_too_small`, `bad_split`) and the errors of `refit_encoder`.
    """
    show = show or SilentReporter()
    timer = StageTimer()
    checked_encoder_name(name)
    start = resolve_model_directory(options.start)
    judgements = None if options.judgements is None else read_collection(options.judgements)
    with timer.stage("pairs"):
        prepared = prepare_corpus(corpus, options.pairs, options.seed, show, more=options.more)
        queries = list_fit_queries(prepared.split.train, options.queries, options.seed)
    with timer.stage("fitting"), hold_run_directory(out):
        model = refit_encoder(start, queries, out / name, corpus=prepared.name, cache=out / "vectors", show=show)
    held_out = held_out_queries(prepared.split, options.among, options.seed)
    sets = [held_out, *([JudgedQueries.of(judgements, len(judgements.ids))] if judgements else [])]
    with timer.stage("comparing"):
        encoders, compared = compare_with_start(start, model, sets, show)
        tables = compare_tables(start, model, held_out.queries)
    manifest = read_manifest(model)
    method = (
        f"{prepared.documents:,} documents. The dense query table of {options.start} and its projection are fitted "
        f"to {len(queries):,} titles, headings and sentences. Time: {timer}, on {multiprocessing.cpu_count()} cores "
        f"of {cpu_name()}. The dense vectors of documents have not changed.\n\n{_describe_tables(tables)}"
    )
    write_report(
        out,
        {
            "corpus": {"name": prepared.name, "documents": prepared.documents},
            "pairs": prepared.pairs.counts(),
            "queries": len(queries),
            "tables": tables,
            "held_out": len(prepared.split.held_out),
            "start": options.start,
            "model": str(model),
            "seconds": timer.seconds,
            "machine": f"{multiprocessing.cpu_count()} cores of {cpu_name()}",
            "load_average": [round(load, 2) for load in os.getloadavg()],
            "training": json.loads(json.dumps((manifest.model_extra or {})["training"])),
        },
        method,
        compared,
        encoders,
    )
    show.report(f"The report is {out / 'report.md'}.")
    return model


def _describe_tables(tables: Mapping[str, Any]) -> str:
    cosine, (low, high) = tables["cosine"], tables["new_over_start"]
    return (
        "The table stands for the encoder's own vectors of queries. Its mean cosine with them, on held-out queries, "
        f"went from {cosine[OLD]:.3f} to {cosine[NEW]:.3f} (95 % of resampled query sets: {low:+.3f} to {high:+.3f})."
    )


def list_fit_queries(pairs: PairSet, most: int, seed: int) -> list[str]:
    """Return the distinct texts that the table is fitted to, at most `most`, drawn at random.

    They are queries that stand by themselves (titles, headings, generated questions) and sentences of passages.
    """
    cut = np.array([origin in _CUT_KINDS for origin in pairs.origins], dtype=bool)
    whole = np.unique(pairs.query_rows[~cut[pairs.origin_rows]]).tolist()
    texts = list(dict.fromkeys([*(pairs.queries[row] for row in whole), *_sentences(pairs.passages)]))
    if len(texts) <= most:
        return texts
    drawn = np.random.default_rng(seed).permutation(len(texts))[:most]
    return [texts[position] for position in np.sort(drawn)]


def _sentences(passages: Sequence[str]) -> Iterator[str]:
    for passage in passages:
        for sentence in split_sentences(passage):
            if _LEAST_WORDS <= len(sentence.split()) <= _MOST_WORDS:
                yield " ".join(sentence.split())
