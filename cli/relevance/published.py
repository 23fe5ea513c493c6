"""Published figures of reference models on BEIR.

A report shows them beside measured figures where the collection is theirs (`find_published`). They are NDCG@10 as the
authors state it, for exact search of the model alone. Sources by model:

- BM25: Anserini's regressions for BEIR v1.0.0, title and text in one field (`multifield`: in two). Other BM25 baselines
  differ by up to .02, so a comparison needs its name.
- SPLADE++ED: Anserini's regressions for BEIR v1.0.0. This model encodes queries too.
- doc-v3-distill, doc-v3-gte: the model cards of OpenSearch's inference-free encoders (arXiv 2411.04403, 2504.14839).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class PublishedCollection:
    """A test set of BEIR with its numbers of documents and of judged queries, and NDCG@10 by model."""

    name: str
    documents: int
    queries: int
    ndcg: Mapping[str, float]


BEIR: Final = (
    PublishedCollection(
        "trec-covid",
        171_332,
        50,
        {"BM25": 0.595, "SPLADE++ED": 0.727, "doc-v3-distill": 0.724, "doc-v3-gte": 0.734},
    ),
    PublishedCollection(
        "nfcorpus",
        3_633,
        323,
        {"BM25": 0.322, "SPLADE++ED": 0.347, "doc-v3-distill": 0.345, "doc-v3-gte": 0.360},
    ),
    PublishedCollection(
        "nq",
        2_681_468,
        3_452,
        {"BM25": 0.306, "SPLADE++ED": 0.538, "doc-v3-distill": 0.544, "doc-v3-gte": 0.582},
    ),
    PublishedCollection("hotpotqa", 5_233_329, 7_405, {"SPLADE++ED": 0.687, "doc-v3-gte": 0.716}),
    PublishedCollection(
        "fiqa",
        57_638,
        648,
        {"BM25": 0.236, "SPLADE++ED": 0.348, "doc-v3-distill": 0.356, "doc-v3-gte": 0.407},
    ),
    PublishedCollection(
        "arguana",
        8_674,
        1_406,
        {"BM25": 0.397, "SPLADE++ED": 0.520, "doc-v3-distill": 0.520, "doc-v3-gte": 0.520},
    ),
    PublishedCollection("webis-touche2020", 382_545, 49, {"SPLADE++ED": 0.247, "doc-v3-gte": 0.389}),
    PublishedCollection("dbpedia-entity", 4_635_922, 400, {"SPLADE++ED": 0.437}),
    PublishedCollection("scidocs", 25_657, 1_000, {"SPLADE++ED": 0.159}),
    PublishedCollection("fever", 5_416_568, 6_666, {"SPLADE++ED": 0.788}),
    PublishedCollection("climate-fever", 5_416_593, 1_535, {"SPLADE++ED": 0.230}),
    PublishedCollection(
        "scifact",
        5_183,
        300,
        {"BM25 (multifield)": 0.665, "SPLADE++ED": 0.704, "doc-v3-distill": 0.708},
    ),
    PublishedCollection(
        "quora",
        522_931,
        10_000,
        {"BM25 (multifield)": 0.789, "SPLADE++ED": 0.834, "doc-v3-distill": 0.863},
    ),
)


def find_published(documents: int, queries: int) -> PublishedCollection | None:
    """Return the test set of BEIR with exactly these numbers of documents and of judged queries, or None.

    The sizes identify a set better than its name: a part of a set has the same name, and its figures are not
    comparable.
    """
    return next((each for each in BEIR if (each.documents, each.queries) == (documents, queries)), None)
