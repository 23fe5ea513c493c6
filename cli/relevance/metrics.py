"""Metrics of rankings and of latency.

`measure_rankings` computes NDCG@10, MRR@10, MAP, Recall@100 and Recall@1000 with ir_measures (trec_eval). `percentiles`
summarises the latency of queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from services.errors import ConfigurationError

if TYPE_CHECKING:
    from models.judged_collection import Judgements

Ranking = Sequence[tuple[str, float]]
Rankings = Mapping[str, Ranking]
# Names of measures, with ir_measures' names.
MEASURES = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "map": "AP", "recall@100": "R@100", "recall@1000": "R@1000"}
# Names of measures, as tables and the literature write them.
MEASURE_TITLES = {
    "ndcg@10": "NDCG@10",
    "mrr@10": "MRR@10",
    "map": "MAP",
    "recall@100": "R@100",
    "recall@1000": "R@1000",
}


@dataclass(frozen=True, slots=True)
class RankingQuality:
    """Means over all judged queries, and figures by query. The keys are those of MEASURES."""

    mean: dict[str, float]
    by_query: dict[str, dict[str, float]]

    def rounded_means(self) -> dict[str, float]:
        """Return the means with five digits, as reports have them."""
        return {name: round(value, 5) for name, value in self.mean.items()}


def measure_rankings(judgements: "Judgements", rankings: Rankings) -> RankingQuality:
    """Measure rankings (document and score, the best first) by their order, with ties as in `break_ties`.

    A judged query without a ranking counts as zero. Raises ConfigurationError (`missing_extra`).
    """
    try:
        import ir_measures
    except ImportError:
        raise ConfigurationError(
            "missing_extra", "Metrics need the package ir_measures: pip install -e '.[eval]'."
        ) from None
    runs = {
        query: {document: float(-rank) for rank, (document, _) in enumerate(break_ties(rankings[query]))}
        for query in judgements
        if rankings.get(query)
    }
    by_query: dict[str, dict[str, float]] = {query: dict.fromkeys(MEASURES, 0.0) for query in judgements}
    names = {ir_measures.parse_measure(measure): name for name, measure in MEASURES.items()}
    for metric in ir_measures.iter_calc(list(names), judgements, runs):
        by_query[metric.query_id][names[metric.measure]] = metric.value
    count = len(by_query)
    return RankingQuality({name: sum(q[name] for q in by_query.values()) / count for name in MEASURES}, by_query)


def break_ties(ranking: Ranking) -> list[tuple[str, float]]:
    """Return the ranking with neighbours of equal score by descending id, as trec_eval orders them.

    trec_eval orders by score alone, so figures of a written run and of the same ranking agree. Hits of different scores
    stay in the order of the service, because rules may place a hit against its score.

    Source: trec_eval 9, form_res_rels.c, comp_sim_docno.
    """
    groups = groupby(ranking, key=lambda entry: entry[1])
    return [entry for _, group in groups for entry in sorted(group, reverse=True)]


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p90 and p99 in milliseconds (nearest rank), or nothing without measurements."""
    ordered = sorted(milliseconds)
    if not ordered:
        return {}
    return {f"p{p}": round(ordered[max(0, -(-len(ordered) * p // 100) - 1)], 3) for p in (50, 90, 99)}
