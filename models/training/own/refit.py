"""Command `sparsewell train own` for a projected encoder: its projection, refitted to a corpus in minutes.

`refit_own_encoder` makes pairs from the corpus, holds some out (`models.training.own.held_out`), refits the encoder to
titles, headings and sentences of the documents without held-out pairs (`models.projection.refit`), and compares it
with the start on all held-out queries. Nothing is chosen by these queries. No GPU and no PyTorch are needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.export.collection import read_collection
from models.judged_queries import JudgedQueries
from models.progress import ProgressReporter, SilentReporter, StageTimer
from models.projection.refit import RefitStart, refit_encoder, require_refit_place
from models.training.own.comparison import NEW, OLD, compare_tables, compare_with_start
from models.training.own.held_out import CorpusOptions, PreparedCorpus, draw_texts, held_out_queries, prepare_corpus
from models.training.own.pairs import PairKind, corpus_name
from models.training.own.report import describe_machine, describe_run, write_report
from models.training.own.sections import split_sections, split_sentences
from models.training.run_directory import checked_encoder_name, hold_run_directory
from services.documents.document import Document
from services.encoders.manifest import read_manifest, resolve_model_directory
from services.errors import ConfigurationError

_LEAST_WORDS, _MOST_WORDS = 4, 30
# Chinese and Japanese sentences have no spaces.
_LEAST_CHARACTERS = 12


@dataclass(frozen=True)
class RefitOptions(CorpusOptions):
    """Options of a refit. `queries` is the most texts of the corpus that the table is fitted to."""

    queries: int = 20_000


def refit_own_encoder(
    corpus: Path, out: Path, options: RefitOptions, *, name: str, show: ProgressReporter | None = None
) -> Path:
    """Refit the start to a corpus, compare on held-out queries, write the report. Return the model directory OUT/NAME.

    Raises ConfigurationError (`start_is_output`, and those of `RefitStart.open` and `refit_encoder`) and InvalidInput
    (`no_documents`, `corpus_too_small`, `bad_split`, `too_few_queries`).
    """
    show = show or SilentReporter()
    timer = StageTimer()
    # Errors of the options must come before generated questions, which take hours.
    checked_encoder_name(name)
    directory, out = resolve_model_directory(options.start).resolve(), out.resolve()
    if directory == out / name:
        raise ConfigurationError(
            "start_is_output", f"{directory} is the start and would be replaced: choose another --out or --name."
        )
    start = RefitStart.open(directory)
    require_refit_place(start, out / name, corpus_name(corpus))
    judgements = None if options.judgements is None else read_collection(options.judgements.resolve())
    with hold_run_directory(out):
        with timer.stage("pairs"):
            prepared = prepare_corpus(corpus, options, show)
            queries = list_fit_queries(prepared, options.queries, options.seed)
        with timer.stage("fitting"):
            model = refit_encoder(start, queries, out / name, corpus=prepared.name, cache=out / "vectors", show=show)
        held_out = held_out_queries(prepared.split, options.among, options.seed)
        sets = [held_out, *([JudgedQueries.of(judgements, len(judgements.ids))] if judgements else [])]
        with timer.stage("comparing"):
            encoders, compared = compare_with_start(directory, model, sets, show)
            tables = compare_tables(start.encoder, directory, model, held_out.queries)
        method = (
            f"{len(prepared.documents):,} documents. The dense query table of {options.start} and its projection are "
            f"fitted to {len(queries):,} titles, headings and sentences of {len(prepared.training_documents()):,} of "
            f"them. Time: {timer}, on {describe_machine()}. The dense vectors of documents have not changed.\n\n"
            f"{_describe_tables(tables)}\n\nA refit weighs meaning more than words, and held-out queries share their "
            "words with their passage. They have misjudged refits: people's questions gained where they lost."
        )
        write_report(
            out,
            {
                **describe_run(prepared, options.start, model, timer),
                "queries": len(queries),
                "tables": tables,
                "training": (read_manifest(model).model_extra or {})["training"],
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
        f"went from {cosine[OLD]:.3f} to {cosine[NEW]:.3f}. In 95 % of resampled query sets the difference lies "
        f"between {low:+.3f} and {high:+.3f}."
    )


def list_fit_queries(prepared: PreparedCorpus, most: int, seed: int) -> list[str]:
    """Return the distinct texts that the table is fitted to, at most `most`, drawn at random.

    They are titles, headings and sentences of the documents without held-out pairs, and generated questions.
    """
    train = prepared.split.train
    generated = [number for number, origin in enumerate(train.origins) if origin not in set(PairKind)]
    rows = np.unique(train.query_rows[np.isin(train.origin_rows, generated)]).tolist()
    return draw_texts([*(train.queries[row] for row in rows), *texts_of(prepared.training_documents())], most, seed)


def texts_of(documents: Iterable[Document]) -> Iterator[str]:
    """Yield titles, headings and sentences, in parts of at most 30 words."""
    for document in documents:
        yield from _cut_words(document.title, 1)
        for section in split_sections(document.text):
            yield from _cut_words(section.heading, 1)
            for sentence in split_sentences(section.text):
                yield from _cut_words(sentence, _LEAST_WORDS)


def _cut_words(text: str, least: int) -> Iterator[str]:
    words = text.split()
    for start in range(0, len(words), _MOST_WORDS):
        part = words[start : start + _MOST_WORDS]
        if len(part) >= least or sum(map(len, part)) >= _LEAST_CHARACTERS:
            yield " ".join(part)
