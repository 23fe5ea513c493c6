"""Report of `sparsewell train own`: quality of the new encoder, its certainty, and its cost.

`write_report` writes report.md, report.json and up to three figures: quality, learning curve, weights a document. The
figures are those of `models.training.own.comparison`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from models.export.throughput import cpu_name
from models.progress import StageTimer
from models.training.own.comparison import HYBRID, NEW, OLD, RERANKED, SEARCHES, ServedVectors
from models.training.own.held_out import PreparedCorpus
from models.training.pairs import PairSet
from services.encoders.query_table import QueryTable

_SHOWN_PIECES = 12
mpl.use("Agg")  # writes files without a display
_GREY, _OLD, _NEW = "#8a8a8a", "#7aa6c2", "#c2573a"
_FIGURE_INCHES = (6.4, 3.6)


def write_report(
    out: Path,
    facts: Mapping[str, Any],
    method: str,
    compared: Mapping[str, Mapping[str, Any]],
    encoders: Mapping[str, ServedVectors],
    *,
    curve: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write report.md, report.json and the figures to `out`.

    `facts` describe the run (corpus, model, pairs by kind, seconds), `method` is their summary in sentences; `compared`
    and `encoders` are those of `compare_with_start`; `curve` is the learning curve, if the encoder was trained.
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
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    plot_quality(out / "quality.png", {name: comparison["ndcg_at_10"] for name, comparison in compared.items()})
    if curve:
        plot_learning_curve(out / "learning.png", curve)
        method += f"\n\n![learning curve](learning.png)\n\n{curve_table(curve)}"
    lengths = {name: [len(vector) for vector in encoder.documents] for name, encoder in encoders.items()}
    plot_vector_lengths(out / "weights.png", lengths)
    (out / "report.md").write_text(_markdown(facts, method, shown, costs, tables), encoding="utf-8")


def describe_run(prepared: PreparedCorpus, start: str, model: Path, timer: StageTimer) -> dict[str, Any]:
    """Return the facts of a run that both methods report."""
    return {
        "corpus": {"name": prepared.name, "documents": len(prepared.documents)},
        "pairs": prepared.pairs.counts(),
        "held_out": len(prepared.split.held_out),
        "start": start,
        "model": str(model),
        "seconds": timer.seconds,
        "machine": describe_machine(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def describe_machine() -> str:
    """Describe the processor: "2 cores of NAME"."""
    return f"{multiprocessing.cpu_count()} cores of {cpu_name()}"


def describe_pairs(pairs: PairSet) -> str:
    """Describe the number of pairs by kind: "title 80, keywords 120"."""
    return ", ".join(f"{kind} {count:,}" for kind, count in pairs.counts().items())


def _markdown(
    facts: Mapping[str, Any],
    method: str,
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
    weights = "\n".join(
        f"| {name} | {cost['weights_a_document']:.0f} | {cost['milliseconds_a_document']:.1f} |"
        for name, cost in costs.items()
    )
    moves = "\n".join(
        f"- {word}: " + ", ".join(f"{piece} {old:.2f} → {new:.2f}" for piece, old, new in tables[word])
        for word in ("rose", "fell")
        if tables[word]
    )
    changes = f"## Largest changes of the query table\n\n{moves}\n\n" if moves else ""
    return f"""# An encoder for {facts["corpus"]["name"]}

{summarise_comparison(compared)}

{head}
{chr(10).join(rows)}

{products_table(compared)}

![quality](quality.png)

The queries of "held out" were made from texts that the new encoder did not see. They search among up to 5,000 passages.
Queries that are made from texts share their words, so they favour BM25. If you have judged queries, compare with them
(`--judgements`), and trust them more.

## Method

{method}

## Cost

| encoder | weights a document | processor milliseconds a document |
|---|--:|--:|
{weights}

![weights a document](weights.png)

{changes}## Use

```bash
sparsewell encoders show {facts["model"]}
sparsewell reindex INDEX --encoder {facts["model"]} --judgements DIR
```
"""


def products_table(compared: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the expected products of a query and a document (FLOPS) by collection and encoder."""
    encoders = list(next(iter(compared.values()))["products"])
    lines = [
        f"| products a query and document | {' | '.join(encoders)} |",
        f"|---|{'--:|' * len(encoders)}",
        *(
            f"| {name} | {' | '.join(format(comparison['products'][encoder], '.2f') for encoder in encoders)} |"
            for name, comparison in compared.items()
        ),
    ]
    return "\n".join(lines)


def curve_table(curve: Sequence[Mapping[str, Any]]) -> str:
    """Format each evaluation of a run: NDCG@10, weights a document and products, and whether it could be chosen."""
    lines = [
        "| step | collection | NDCG@10 | weights a document | products a query and document | could be chosen |",
        "|--:|---|--:|--:|--:|---|",
        *(
            f"| {entry['step']:,} | {name} | {figures['sparse']:.4f} | {figures['weights_a_document']:.0f} "
            f"| {figures['flops']:.2f} | {'yes' if entry.get('eligible', True) else 'no'} |"
            for entry in curve
            for name, figures in entry["collections"].items()
        ),
    ]
    return "\n".join(lines)


def summarise_comparison(compared: Mapping[str, Mapping[str, Any]]) -> str:
    """Summarise each search of each collection in a line: the difference from the start, and whether it is noise."""
    lines = []
    for name, comparison in compared.items():
        for title, (low, high) in comparison["new_over_start"].items():
            figures = comparison["ndcg_at_10"]
            difference = 100 * (figures[f"{NEW}{SEARCHES[title]}"] - figures[f"{OLD}{SEARCHES[title]}"])
            verdict = "better" if low > 0 else "worse" if high < 0 else "not surely different"
            lines.append(
                f"- {name}, {title}: {difference:+.1f} points of NDCG@10 over the start, {verdict} "
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
            hatch="//" if system.endswith(HYBRID) else ".." if system.endswith(RERANKED) else None, edgecolor="white",
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
