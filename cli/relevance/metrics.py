"""NDCG@10, MRR@10 and Recall@100 from ir_measures (trec_eval's implementation behind it), and TREC run files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.relevance.collection import Judgements
from services.errors import ConfigurationError

Ranking = Sequence[tuple[str, float]]
Rankings = Mapping[str, Ranking]

# Our names, and ir_measures' names for them.
MEASURES = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "recall@100": "R@100"}


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over all judged queries, and the figure of each query; keys are those of MEASURES."""

    mean: dict[str, float]
    by_query: dict[str, dict[str, float]]


def measure(judgements: Judgements, rankings: Rankings) -> Quality:
    """Measures rankings (document and score, best first) by the order in which they were given.

    A judged query without a ranking counts as zero. Scores play no part: trec_eval would put equal ones into an order
    of its own, which nobody who searched has seen. Raises ConfigurationError when the `eval` extra is missing.
    """
    try:
        import ir_measures
    except ImportError:
        raise ConfigurationError(
            "missing_extra", "Metrics need the package ir_measures: pip install -e '.[eval]'."
        ) from None
    runs = {
        query: {document: float(len(rankings[query]) - rank) for rank, (document, _) in enumerate(rankings[query])}
        for query in judgements
        if rankings.get(query)
    }
    by_query: dict[str, dict[str, float]] = {query: dict.fromkeys(MEASURES, 0.0) for query in judgements}
    ours = {ir_measures.parse_measure(theirs): name for name, theirs in MEASURES.items()}
    for metric in ir_measures.iter_calc(list(ours), judgements, runs):
        by_query[metric.query_id][ours[metric.measure]] = metric.value
    count = len(by_query)
    return Quality({name: sum(q[name] for q in by_query.values()) / count for name in MEASURES}, by_query)


def write_run(path: Path, rankings: Rankings, tag: str) -> None:
    """Writes a TREC run file: query, Q0, document, rank from 1, score, tag. Spaces in ids become underscores.

    Scores are the engine's. A reader that sorts by them may order ties differently than the ranks say.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for query, ranking in rankings.items():
            for rank, (document, score) in enumerate(ranking, 1):
                file.write(f"{_word(query)} Q0 {_word(document)} {rank} {score:.9g} {tag}\n")


def _word(identifier: str) -> str:
    return "_".join(identifier.split())
