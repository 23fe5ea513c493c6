"""The report of `sparsewell train own`: is the new encoder better here, how sure is that, what did it cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.training.own import plots
from models.training.own.compare import Served, interval
from services.query_table import QueryTable

OLD, NEW = "start", "new"
_SHOWN = 12


def verdict(compared: Mapping[str, Mapping[str, Any]]) -> str:
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


def moved(old: QueryTable, new: QueryTable) -> dict[str, list[tuple[str, float, float]]]:
    """The pieces of the query table that rose and fell most, with both weights."""
    before, after = dict(old.weighted()), dict(new.weighted())
    changes = sorted((after.get(piece, 0.0) - weight, piece) for piece, weight in before.items())
    changes = [(change, piece) for change, piece in changes if round(change, 3)]
    rows = [(piece, round(before[piece], 3), round(after.get(piece, 0.0), 3)) for _, piece in changes]
    fell = [row for row in rows if row[2] < row[1]]
    rose = [row for row in reversed(rows) if row[2] > row[1]]
    return {"fell": fell[:_SHOWN], "rose": rose[:_SHOWN]}


def write_report(
    out: Path,
    facts: Mapping[str, Any],
    compared: Mapping[str, Mapping[str, Any]],
    curve: Sequence[Mapping[str, Any]],
    encoders: Mapping[str, Served],
) -> None:
    """Writes report.md, report.json and the pictures to `out`.

    `facts` says what was done (corpus, pairs by kind, seconds); `compared` is `compare`'s answer by collection with
    `new_over_start`; `encoders` holds the corpus' own vectors of start and new.
    """
    tables = moved(encoders[OLD].table, encoders[NEW].table)
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
    plots.bars(out / "quality.png", {name: one["ndcg_at_10"] for name, one in compared.items()})
    plots.learning(out / "learning.png", curve)
    plots.lengths(out / "weights.png", {name: [len(v) for v in one.documents] for name, one in encoders.items()})
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

{verdict(compared)}

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


def sureness(compared: dict[str, dict[str, Any]]) -> None:
    """Adds `new_over_start` to each comparison."""
    for one in compared.values():
        one["new_over_start"] = interval(one["scores"][NEW], one["scores"][OLD])
