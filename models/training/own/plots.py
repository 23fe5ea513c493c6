"""The pictures of a report: quality beside BM25 and the start, the learning curve, weights a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # no display is needed to write a file
from matplotlib import pyplot as plt

_GREY, _OLD, _NEW = "#8a8a8a", "#7aa6c2", "#c2573a"
_SIZE = (6.4, 3.6)


def bars(path: Path, found: Mapping[str, Mapping[str, float]]) -> None:
    """NDCG@10 by collection (outer) and system (inner), one group of bars a collection."""
    systems = list(next(iter(found.values())))
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
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
    _clean(axes)
    _save(figure, path)


def learning(path: Path, curve: Sequence[Mapping[str, Any]]) -> None:
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
    _clean(upper)
    _clean(lower)
    _save(figure, path)


def lengths(path: Path, found: Mapping[str, Sequence[int]]) -> None:
    """How many weights documents have, a curve an encoder."""
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    colours = dict(zip(found, (_OLD, _NEW), strict=False))
    for name, counts in found.items():
        axes.hist(counts, bins=40, histtype="step", label=name, color=colours[name], linewidth=1.5)
    axes.set_xlabel("weights a document")
    axes.set_ylabel("documents")
    axes.legend(fontsize=8, frameon=False)
    _clean(axes)
    _save(figure, path)


def _clean(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=140)
    plt.close(figure)
