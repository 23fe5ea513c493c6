"""Reports about stored evaluations: HTML files that open without a network.

`sparsewell eval report RESULT...` reads the files that `eval collection --json` and `eval runs --json` wrote.
A report has a leaderboard of all searches for each collection, a plot of each, the published figures of reference
models for collections of BEIR, and the queries that gained and lost with the pieces that decided.
"""

import json as jsonlib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.relevance.metrics import MEASURE_TITLES, MEASURES
from cli.relevance.published import PublishedCollection, find_published
from services.errors import ConfigurationError, InvalidInput

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "th,td{padding:.25rem .75rem;border-bottom:1px solid #ddd;text-align:left}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}svg text{font:13px system-ui,sans-serif}"
    ".up{color:#0a6b2d}.down{color:#a3161a}small{color:#555}"
)
_BAR_WIDTH, _BAR_HEIGHT, _LABEL_WIDTH = 420, 22, 240


def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="files of --json, of one or more runs")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the report")] = Path("evaluation.html"),
    measure: Annotated[str, typer.Option(help="measure that orders the searches: " + ", ".join(MEASURES))] = "ndcg@10",
) -> None:
    """Write a report with the leaderboard of stored evaluations. It opens without a network.

    Example: sparsewell eval report results/*.json --out leaderboard.html
    """
    from cli.api_client import require_writable
    from cli.relevance.runs import require_measure

    require_measure(measure)
    require_writable(out)
    collections: dict[str, list[dict[str, Any]]] = {}
    for path in results:
        found = read_report(path)
        collections.setdefault(found["title"], []).append(found)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(_page(collections, measure)), encoding="utf-8")
    print(f"Wrote {out}")


def read_report(path: Path) -> dict[str, Any]:
    """Read a stored result: its title, the figures of each search, and the comparisons with the first.

    Raises ConfigurationError (`result_not_found`), InvalidInput (`malformed_result`).
    """
    try:
        stored = jsonlib.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError("result_not_found", f"{path} cannot be read ({type(error).__name__}).") from None
    except ValueError as error:
        raise InvalidInput("malformed_result", f"{path} is not JSON: {error}.") from None
    try:
        if "runs" in stored:
            title, figures = f"{stored['queries']:,} judged queries", stored["runs"]
            comparisons, published = stored["comparisons"], None
        else:
            collection, figures = stored["collection"], stored["modes"]
            title = f"{collection['name']}: {collection['documents']:,} documents, {collection['queries']:,} queries"
            comparisons = stored.get("comparisons_with_first", {})
            published = find_published(int(collection["documents"]), int(collection["queries"]))
        rendered = "".join(
            part for name, comparison in comparisons.items() for part in _comparison(str(name), comparison)
        )
        searches = {
            str(name): {measure: float(values[measure]) for measure in MEASURES if measure in values}
            for name, values in figures.items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InvalidInput(
            "malformed_result", f"{path} is not a result of `sparsewell eval collection --json` or `eval runs --json`."
        ) from None
    details = ", ".join(filter(None, (stored.get("made_at"), str(stored.get("commit") or "")[:12] or None)))
    return {
        "title": title,
        "source": path.name,
        "details": details,
        "searches": searches,
        "comparisons": rendered,
        "published": published,
    }


def _page(collections: Mapping[str, Sequence[Mapping[str, Any]]], measure: str) -> Iterator[str]:
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>Evaluations</title><style>{_STYLE}</style>"
    yield f"<h1>Evaluations</h1><p>Searches are ordered by {MEASURE_TITLES[measure]}.</p>"
    for title, reports in collections.items():
        rows = [(name, figures, report) for report in reports for name, figures in report["searches"].items()]
        rows.sort(key=lambda row: row[1].get(measure, 0.0), reverse=True)
        yield f"<h2>{escape(title)}</h2>"
        yield _plot([(name, figures.get(measure, 0.0)) for name, figures, _ in rows], MEASURE_TITLES[measure])
        yield "<table><tr><th>search"
        yield from (f"<th class=n>{MEASURE_TITLES[name]}" for name in MEASURES)
        yield "<th>result"
        for name, figures, result in rows:
            yield f"<tr><td>{escape(name)}"
            yield from (f"<td class=n>{figures[key]:.4f}" if key in figures else "<td>" for key in MEASURES)
            yield f"<td>{escape(result['source'])} <small>{escape(result['details'])}</small>"
        yield "</table>"
        if reports[0]["published"] is not None:
            yield from _published(reports[0]["published"])
        yield from (result["comparisons"] for result in reports)


def _published(collection: PublishedCollection) -> Iterator[str]:
    yield f"<p>Published NDCG@10 of reference models on {escape(collection.name)}, not measured here:</p><table>"
    for model, value in sorted(collection.ndcg.items(), key=lambda entry: entry[1], reverse=True):
        yield f"<tr><td>{escape(model)}<td class=n>{value:.3f}"
    yield "</table>"


def _comparison(name: str, comparison: Mapping[str, Any]) -> Iterator[str]:
    chance = "beyond chance" if comparison["beyond_chance"] else "within chance"
    yield (
        f"<details><summary>{escape(name)} over the first search: {comparison['difference']:+.4f} "
        f"({comparison['low']:+.4f} to {comparison['high']:+.4f}, p {comparison['p']:.4f}, {chance}); "
        f"{comparison['gained_count']:,} queries gained, {comparison['lost_count']:,} lost</summary>"
    )
    for kind, direction in (("gained", "up"), ("lost", "down")):
        if comparison[kind]:
            yield f"<table><tr><th>{kind} the most<th class=n>before<th class=n>after"
            for change in comparison[kind]:
                yield (
                    f"<tr><td>{escape(str(change['query']))}<td class=n>{change['before']:.4f}"
                    f"<td class='n {direction}'>{change['after']:.4f}"
                )
            yield "</table>"
    for change in comparison.get("explained", ()):
        yield from _explained(change)
    yield "</details>"


def _explained(change: Mapping[str, Any]) -> Iterator[str]:
    """Show which pieces separate a judged document from the document that overtook it."""
    rival = change["rival"]
    yield f"<p><b>{escape(str(change['text']))}</b>: {escape(str(change['document']))} {_ranks(change['ranks'])}"
    if rival is not None:
        yield f", overtaken by {escape(str(rival))} {_ranks(change['rival_ranks'])}"
    for side in ("before", "after"):
        if change[side]:
            yield f"<table><tr><th>{side}<th>list<th class=n>{escape(str(change['document']))}"
            yield f"<th class=n>{escape(str(rival))}"
            for piece in change[side]:
                yield (
                    f"<tr><td>{escape(str(piece['piece']))}<td>{escape(str(piece['list']))}"
                    f"<td class=n>{piece['document']:.3f}<td class=n>{piece['rival']:.3f}"
                )
            yield "</table>"


def _ranks(ranks: Sequence[int | None]) -> str:
    before, after = ("not found" if rank is None else f"rank {rank}" for rank in ranks)
    return f"({before} before, {after} after)"


def _plot(values: Sequence[tuple[str, float]], title: str) -> str:
    """Return a bar for each search as SVG. Values are from 0 to 1."""
    largest = max((value for _, value in values), default=0.0) or 1.0
    bars = []
    for row, (name, value) in enumerate(values):
        top, length = _BAR_HEIGHT * row, max(1, round(_BAR_WIDTH * value / largest))
        bars.append(
            f"<text x={_LABEL_WIDTH - 8} y={top + 15} text-anchor=end>{escape(name[:36])}</text>"
            f"<rect x={_LABEL_WIDTH} y={top + 3} height={_BAR_HEIGHT - 6} width={length} fill=#3a6ea5 />"
            f"<text x={_LABEL_WIDTH + length + 6} y={top + 15}>{value:.4f}</text>"
        )
    height, width = _BAR_HEIGHT * len(values), _LABEL_WIDTH + _BAR_WIDTH + 80
    return f"<svg role=img aria-label='{escape(title)}' width={width} height={height}>{''.join(bars)}</svg>"
