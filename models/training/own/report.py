"""Report of `sparsewell train own`: quality of the new encoder, its certainty, and its cost.

`encode_as_served` and `compare_encoders` measure encoders as they will be served: int8, windows, top k, alone and fused
with BM25. `bootstrap_interval` says whether a difference is noise. `write_report` writes report.md, report.json and
three figures: quality, learning curve, weights a document.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray

from models.registry import load_encoder
from models.training.evaluation import JudgedQueries, hybrid_rankings, ndcg_by_query, sparse_rankings
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.encoders.vectors import merge_max

_MAX_QUERY_CHARACTERS = 8192
_BATCH_DOCUMENTS = 64
_SHOWN_PIECES = 12
OLD, NEW = "start", "new"
mpl.use("Agg")  # writes files without a display
_GREY, _OLD, _NEW = "#8a8a8a", "#7aa6c2", "#c2573a"
_FIGURE_INCHES = (6.4, 3.6)
ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class ServedVectors:
    """Document vectors of an encoder as the service makes them, and its query table."""

    documents: list[dict[int, float]]
    milliseconds_a_document: float
    table: QueryTable

    def queries(self, texts: Sequence[str]) -> list[dict[int, float]]:
        return [self.table.encode(text, _MAX_QUERY_CHARACTERS).by_id() for text in texts]


def encode_as_served(
    name_or_path: str | Path, documents: Sequence[str], done: ProgressCallback = lambda count, total: None
) -> ServedVectors:
    """Encode whole documents as the indexer does: the encoder's windows, maximum over windows, top k."""
    encoder = load_encoder(str(name_or_path))
    vectors: list[dict[int, float]] = []
    began = time.process_time()
    for at in range(0, len(documents), _BATCH_DOCUMENTS):
        cuts = [encoder.windows(text) for text in documents[at : at + _BATCH_DOCUMENTS]]
        encoded = iter(encoder.encode([window for windows in cuts for window in windows]))
        for windows in cuts:
            vector = merge_max([next(encoded) for _ in windows]).top(encoder.manifest.top_k)
            vectors.append(dict(zip(vector.ids.tolist(), vector.weights.tolist(), strict=True)))
        done(len(vectors), len(documents))
    spent = (time.process_time() - began) * 1e3 / max(1, len(documents))
    return ServedVectors(vectors, round(spent, 2), QueryTable.load(resolve_model_directory(str(name_or_path))))


def compare_encoders(judged: JudgedQueries, encoders: Mapping[str, ServedVectors]) -> dict[str, Any]:
    """Return NDCG@10 of BM25, of each encoder alone and of each with BM25, and the scores of each query.

    `encoders` hold the vectors of the collection's documents, in their order.
    """
    lexical = judged.lexical
    scores = {"bm25": ndcg_by_query(judged, lexical)}
    for name, encoder in encoders.items():
        sparse = sparse_rankings(encoder.documents, encoder.queries(judged.queries))
        scores[name] = ndcg_by_query(judged, sparse)
        scores[f"{name} with bm25"] = ndcg_by_query(judged, hybrid_rankings(sparse, lexical))
    return {
        "documents": len(judged.documents),
        "queries": len(judged.queries),
        "ndcg_at_10": {name: round(float(by_query.mean()), 4) for name, by_query in scores.items()},
        "scores": scores,
    }


def add_start_difference(compared: dict[str, dict[str, Any]]) -> None:
    """Add the interval `new_over_start` to each comparison."""
    for comparison in compared.values():
        scores = comparison["scores"]
        comparison["new_over_start"] = bootstrap_interval(scores[NEW], scores[OLD])


def bootstrap_interval(new: NDArray[np.float64], old: NDArray[np.float64], draws: int = 2000) -> tuple[float, float]:
    """Return the middle 95 % of the mean difference over queries, by paired bootstrap with a fixed seed."""
    difference = new - old
    resampled = np.random.default_rng(0).integers(0, len(difference), (draws, len(difference)))
    low, high = np.quantile(difference[resampled].mean(axis=1), [0.025, 0.975])
    return round(float(low), 4), round(float(high), 4)


def write_report(
    out: Path,
    facts: Mapping[str, Any],
    compared: Mapping[str, Mapping[str, Any]],
    curve: Sequence[Mapping[str, Any]],
    encoders: Mapping[str, ServedVectors],
) -> None:
    """Write report.md, report.json and the figures to `out`.

    `facts` describe the run (corpus, pairs by kind, seconds); `compared` holds the result of `compare_encoders` by
    collection, with `new_over_start`; `encoders` hold the vectors of start and new encoder.
    """
    tables = largest_weight_changes(encoders[OLD].table, encoders[NEW].table)
    shown = {
        name: {key: value for key, value in comparison.items() if key != "scores"}
        for name, comparison in compared.items()
    }
    costs = {
        name: {
            "weights_a_document": round(sum(map(len, encoder.documents)) / max(1, len(encoder.documents)), 1),
            "milliseconds_a_document": encoder.milliseconds_a_document,
        }
        for name, encoder in encoders.items()
    }
    content = dict(facts) | {"compared": shown, "encoders": costs, "table": tables, "curve": list(curve)}
    (out / "report.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    plot_quality(out / "quality.png", {name: comparison["ndcg_at_10"] for name, comparison in compared.items()})
    plot_learning_curve(out / "learning.png", curve)
    lengths = {name: [len(vector) for vector in encoder.documents] for name, encoder in encoders.items()}
    plot_vector_lengths(out / "weights.png", lengths)
    (out / "report.md").write_text(_markdown(facts, shown, costs, tables), encoding="utf-8")


def _markdown(
    facts: Mapping[str, Any],
    compared: Mapping[str, Mapping[str, Any]],
    costs: Mapping[str, Mapping[str, float]],
    tables: Mapping[str, list[tuple[str, float, float]]],
) -> str:
    systems = list(next(iter(compared.values()))["ndcg_at_10"])
    head = f"| collection | queries | {' | '.join(systems)} |\n|---|--:|{'--:|' * len(systems)}"
    rows = []
    for name, comparison in compared.items():
        scores = " | ".join(f"{comparison['ndcg_at_10'][system]:.3f}" for system in systems)
        rows.append(f"| {name} | {comparison['queries']:,} | {scores} |")
    pairs = ", ".join(f"{kind} {count:,}" for kind, count in facts["pairs"].items())
    spent = ", ".join(f"{stage} {seconds:,.0f} s" for stage, seconds in facts["seconds"].items())
    weights = "\n".join(
        f"| {name} | {cost['weights_a_document']:.0f} | {cost['milliseconds_a_document']:.1f} |"
        for name, cost in costs.items()
    )
    moves = "\n".join(
        f"- {word}: " + ", ".join(f"{piece} {old:.2f} → {new:.2f}" for piece, old, new in tables[word])
        for word in ("rose", "fell")
    )
    return f"""# An encoder for {facts["corpus"]["name"]}

{summarise_comparison(compared)}

{head}
{chr(10).join(rows)}

![quality](quality.png)

The queries of "held out" were made from documents that training never saw, and search among all documents;
{facts["chosen_by"]:,} other held-out queries chose the checkpoint. Queries that are made from texts are easier for BM25
than those of people: if you have judged queries, compare with them (`--judgements`).

## Training

{facts["corpus"]["documents"]:,} documents; pairs: {pairs}. {facts["steps"]:,} steps of {facts["batch"]} pairs from
{facts["start"]}; teachers: {facts["teachers"] or "none"}. Time: {spent}, on {facts["machine"]}. The best checkpoint is
that of step {facts["best_step"]:,}{", which is the start itself" if facts["best_step"] == 0 else ""}.

![learning curve](learning.png)

## Cost

| encoder | weights a document | processor milliseconds a document |
|---|--:|--:|
{weights}

![weights a document](weights.png)

## Largest changes of the query table

{moves}

## Use

```bash
sparsewell encoders show {facts["model"]}
sparsewell reindex INDEX --encoder {facts["model"]} --judgements DIR
```
"""


def summarise_comparison(compared: Mapping[str, Mapping[str, Any]]) -> str:
    """Summarise each collection in a sentence: the difference from the start, and whether it is noise."""
    lines = []
    for name, comparison in compared.items():
        low, high = comparison["new_over_start"]
        difference = 100 * (comparison["ndcg_at_10"][NEW] - comparison["ndcg_at_10"][OLD])
        verdict = "better" if low > 0 else "worse" if high < 0 else "not surely different"
        lines.append(
            f"{name}: {difference:+.1f} points of NDCG@10 over the start, {verdict} "
            f"(95 % of resampled query sets: {100 * low:+.1f} to {100 * high:+.1f})."
        )
    return "\n".join(lines)


def largest_weight_changes(old: QueryTable, new: QueryTable) -> dict[str, list[tuple[str, float, float]]]:
    """Return the pieces of the query table whose weights rose and fell most, with both weights."""
    before, after = dict(old.weighted()), dict(new.weighted())
    changes = sorted((after.get(piece, 0.0) - weight, piece) for piece, weight in before.items())
    changes = [(change, piece) for change, piece in changes if round(change, 3)]
    rows = [(piece, round(before[piece], 3), round(after.get(piece, 0.0), 3)) for _, piece in changes]
    fell = [row for row in rows if row[2] < row[1]]
    rose = [row for row in reversed(rows) if row[2] > row[1]]
    return {"fell": fell[:_SHOWN_PIECES], "rose": rose[:_SHOWN_PIECES]}


def plot_quality(path: Path, scores_by_collection: Mapping[str, Mapping[str, float]]) -> None:
    """Plot NDCG@10 by collection (outer key) and system (inner key), a group of bars for each collection."""
    systems = list(next(iter(scores_by_collection.values())))
    figure, axes = plt.subplots(figsize=_FIGURE_INCHES, layout="constrained")
    width = 0.8 / len(systems)
    for at, system in enumerate(systems):
        colour = _GREY if system == "bm25" else _NEW if system.startswith("new") else _OLD
        places = [group + at * width for group in range(len(scores_by_collection))]
        heights = [scores[system] for scores in scores_by_collection.values()]
        bars = axes.bar(
            places, heights, width * 0.92, label=system, color=colour,
            hatch="//" if system.endswith("with bm25") else None, edgecolor="white",
        )  # fmt: skip
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.set_xticks([group + 0.4 - width / 2 for group in range(len(scores_by_collection))], list(scores_by_collection))
    axes.set_ylabel("NDCG@10")
    axes.legend(fontsize=7, ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.18))
    _clean_axes(axes)
    _save_figure(figure, path)


def plot_learning_curve(path: Path, curve: Sequence[Mapping[str, Any]]) -> None:
    """Plot NDCG@10 of each collection by step, with BM25 as dotted lines, and weights a document below."""
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(6.4, 4.8), sharex=True, layout="constrained", height_ratios=(2, 1)
    )
    steps = [entry["step"] for entry in curve]
    for name in curve[0]["collections"]:
        line = upper.plot(steps, [entry["collections"][name]["sparse"] for entry in curve], marker=".", label=name)[0]
        upper.axhline(curve[-1]["collections"][name]["bm25"], color=line.get_color(), linestyle=":", linewidth=1)
        lower.plot(steps, [entry["collections"][name]["weights_a_document"] for entry in curve], color=line.get_color())
    upper.set_ylabel("NDCG@10 (BM25 dotted)")
    lower.set_ylabel("weights a document")
    lower.set_xlabel("step")
    upper.legend(fontsize=7, frameon=False)
    _clean_axes(upper)
    _clean_axes(lower)
    _save_figure(figure, path)


def plot_vector_lengths(path: Path, counts_by_encoder: Mapping[str, Sequence[int]]) -> None:
    """Plot the distribution of weights a document for each encoder."""
    figure, axes = plt.subplots(figsize=_FIGURE_INCHES, layout="constrained")
    colours = dict(zip(counts_by_encoder, (_OLD, _NEW), strict=False))
    for name, counts in counts_by_encoder.items():
        axes.hist(counts, bins=40, histtype="step", label=name, color=colours[name], linewidth=1.5)
    axes.set_xlabel("weights a document")
    axes.set_ylabel("documents")
    axes.legend(fontsize=8, frameon=False)
    _clean_axes(axes)
    _save_figure(figure, path)


def _clean_axes(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)


def _save_figure(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=140)
    plt.close(figure)
