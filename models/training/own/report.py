"""The report of `sparsewell train own`: is the new encoder better here, how sure is that, what did it cost.

Encoders side by side as they will be served: int8, windows, top-k, and BM25 beside them.

The pictures of a report: quality beside BM25 and the start, the learning curve, weights a document.
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
ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class ServedVectors:
    """A document's vector and a query's as the service makes them, of one encoder."""

    documents: list[dict[int, float]]
    milliseconds_a_document: float
    table: QueryTable

    def queries(self, texts: Sequence[str]) -> list[dict[int, float]]:
        return [self.table.encode(text, _MAX_QUERY_CHARACTERS).by_id() for text in texts]


def encode_as_served(
    name_or_path: str | Path, documents: Sequence[str], done: ProgressCallback = lambda count, total: None
) -> ServedVectors:
    """Encodes whole documents, cut into the encoder's own windows, maximum over windows, its top-k."""
    encoder = load_encoder(str(name_or_path))
    vectors: list[dict[int, float]] = []
    began = time.process_time()
    for at in range(0, len(documents), _BATCH_DOCUMENTS):
        cuts = [encoder.windows(text) for text in documents[at : at + _BATCH_DOCUMENTS]]
        found = iter(encoder.encode([window for made in cuts for window in made]))
        for made in cuts:
            vector = merge_max([next(found) for _ in made]).top(encoder.manifest.top_k)
            vectors.append(dict(zip(vector.ids.tolist(), vector.weights.tolist(), strict=True)))
        done(len(vectors), len(documents))
    spent = (time.process_time() - began) * 1e3 / max(1, len(documents))
    return ServedVectors(vectors, round(spent, 2), QueryTable.load(resolve_model_directory(str(name_or_path))))


def compare_encoders(judged: JudgedQueries, encoders: Mapping[str, ServedVectors]) -> dict[str, Any]:
    """NDCG@10 of BM25, of each encoder alone and of each with BM25; and how sure each difference to BM25 is.

    `encoders` were given the collection's documents, in its order.
    """
    lexical = judged.lexical
    scores = {"bm25": ndcg_by_query(judged, lexical)}
    for name, one in encoders.items():
        sparse = sparse_rankings(one.documents, one.queries(judged.queries))
        scores[name] = ndcg_by_query(judged, sparse)
        scores[f"{name} with bm25"] = ndcg_by_query(judged, hybrid_rankings(sparse, lexical))
    return {
        "documents": len(judged.documents),
        "queries": len(judged.queries),
        "ndcg_at_10": {name: round(float(found.mean()), 4) for name, found in scores.items()},
        "scores": scores,
    }


def bootstrap_interval(new: NDArray[np.float64], old: NDArray[np.float64], draws: int = 2000) -> tuple[float, float]:
    """The middle 95 % of the mean difference over queries, by paired bootstrap with a fixed seed."""
    difference = new - old
    chosen = np.random.default_rng(0).integers(0, len(difference), (draws, len(difference)))
    low, high = np.quantile(difference[chosen].mean(axis=1), [0.025, 0.975])
    return round(float(low), 4), round(float(high), 4)


mpl.use("Agg")  # no display is needed to write a file

_GREY, _OLD, _NEW = "#8a8a8a", "#7aa6c2", "#c2573a"
_FIGURE_INCHES = (6.4, 3.6)


def plot_quality(path: Path, found: Mapping[str, Mapping[str, float]]) -> None:
    """NDCG@10 by collection (outer) and system (inner), one group of bars a collection."""
    systems = list(next(iter(found.values())))
    figure, axes = plt.subplots(figsize=_FIGURE_INCHES, layout="constrained")
    width = 0.8 / len(systems)
    for at, system in enumerate(systems):
        colour = _GREY if system == "bm25" else _NEW if system.startswith("new") else _OLD
        places = [group + at * width for group in range(len(found))]
        drawn = axes.bar(
            places, [scores[system] for scores in found.values()], width * 0.92, label=system, color=colour,
            hatch="//" if system.endswith("with bm25") else None, edgecolor="white",
        )  # fmt: skip
        axes.bar_label(drawn, fmt="%.2f", fontsize=7)
    axes.set_xticks([group + 0.4 - width / 2 for group in range(len(found))], list(found))
    axes.set_ylabel("NDCG@10")
    axes.legend(fontsize=7, ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.18))
    _clean_axes(axes)
    _save_figure(figure, path)


def plot_learning_curve(path: Path, curve: Sequence[Mapping[str, Any]]) -> None:
    """NDCG@10 by step, each collection and the mean; BM25 dashed; weights a document below."""
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


def plot_vector_lengths(path: Path, found: Mapping[str, Sequence[int]]) -> None:
    """How many weights documents have, a curve an encoder."""
    figure, axes = plt.subplots(figsize=_FIGURE_INCHES, layout="constrained")
    colours = dict(zip(found, (_OLD, _NEW), strict=False))
    for name, counts in found.items():
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


OLD, NEW = "start", "new"
_SHOWN_PIECES = 12


def summarise_comparison(compared: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence for each collection: by how much the new encoder differs from the start, and whether it is noise."""
    lines = []
    for name, one in compared.items():
        low, high = one["new_over_start"]
        difference = 100 * (one["ndcg_at_10"][NEW] - one["ndcg_at_10"][OLD])
        sure = "better" if low > 0 else "worse" if high < 0 else "not surely different"
        lines.append(
            f"{name}: {difference:+.1f} points of NDCG@10 over the start, {sure} "
            f"(95 % of resampled query sets: {100 * low:+.1f} to {100 * high:+.1f})."
        )
    return "\n".join(lines)


def largest_weight_changes(old: QueryTable, new: QueryTable) -> dict[str, list[tuple[str, float, float]]]:
    """The pieces of the query table that rose and fell most, with both weights."""
    before, after = dict(old.weighted()), dict(new.weighted())
    changes = sorted((after.get(piece, 0.0) - weight, piece) for piece, weight in before.items())
    changes = [(change, piece) for change, piece in changes if round(change, 3)]
    rows = [(piece, round(before[piece], 3), round(after.get(piece, 0.0), 3)) for _, piece in changes]
    fell = [row for row in rows if row[2] < row[1]]
    rose = [row for row in reversed(rows) if row[2] > row[1]]
    return {"fell": fell[:_SHOWN_PIECES], "rose": rose[:_SHOWN_PIECES]}


def write_report(
    out: Path,
    facts: Mapping[str, Any],
    compared: Mapping[str, Mapping[str, Any]],
    curve: Sequence[Mapping[str, Any]],
    encoders: Mapping[str, ServedVectors],
) -> None:
    """Writes report.md, report.json and the pictures to `out`.

    `facts` says what was done (corpus, pairs by kind, seconds); `compared` is `compare`'s answer by collection with
    `new_over_start`; `encoders` holds the corpus' own vectors of start and new.
    """
    tables = largest_weight_changes(encoders[OLD].table, encoders[NEW].table)
    shown = {name: {key: value for key, value in one.items() if key != "scores"} for name, one in compared.items()}
    costs = {
        name: {
            "weights_a_document": round(sum(map(len, one.documents)) / max(1, len(one.documents)), 1),
            "milliseconds_a_document": one.milliseconds_a_document,
        }
        for name, one in encoders.items()
    }
    content = dict(facts) | {"compared": shown, "encoders": costs, "table": tables, "curve": list(curve)}
    (out / "report.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    plot_quality(out / "quality.png", {name: one["ndcg_at_10"] for name, one in compared.items()})
    plot_learning_curve(out / "learning.png", curve)
    plot_vector_lengths(out / "weights.png", {name: [len(v) for v in one.documents] for name, one in encoders.items()})
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
    for name, one in compared.items():
        scores = " | ".join(f"{one['ndcg_at_10'][system]:.3f}" for system in systems)
        rows.append(f"| {name} | {one['queries']:,} | {scores} |")
    pairs = ", ".join(f"{kind} {count:,}" for kind, count in facts["pairs"].items())
    spent = ", ".join(f"{stage} {seconds:,.0f} s" for stage, seconds in facts["seconds"].items())
    weights = "\n".join(
        f"| {name} | {one['weights_a_document']:.0f} | {one['milliseconds_a_document']:.1f} |"
        for name, one in costs.items()
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

"held out" asks with what was made of documents that the training never saw, among all documents; {facts["chosen_by"]:,}
other held-out queries chose the checkpoint. Queries that were made of texts are easier for BM25 than a person's are:
judge by your own queries where you have some (`--judgements`).

## What was done

{facts["corpus"]["documents"]:,} documents; pairs: {pairs}. {facts["steps"]:,} steps of {facts["batch"]} pairs from
{facts["start"]}; teachers: {facts["teachers"] or "none"}. Time: {spent}, on {facts["machine"]}. The best checkpoint is
that of step {facts["best_step"]:,}{", which is the start itself" if facts["best_step"] == 0 else ""}.

![learning curve](learning.png)

## What it costs to use

| encoder | weights a document | processor milliseconds a document |
|---|--:|--:|
{weights}

![weights a document](weights.png)

## What moved most in the query table

{moves}

## To use it

```bash
sparsewell encoders show {facts["model"]}
sparsewell reindex INDEX --encoder {facts["model"]} --judgements DIR
```
"""


def add_start_difference(compared: dict[str, dict[str, Any]]) -> None:
    """Adds `new_over_start` to each comparison."""
    for one in compared.values():
        one["new_over_start"] = bootstrap_interval(one["scores"][NEW], one["scores"][OLD])
