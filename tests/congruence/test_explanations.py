"""Explanations and fusion through the live API: the contributions add up to the score of each list."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from cli.relevance.live import LiveIndex
from models.judged_collection import CorpusDocument
from services.query.fusion import fuse_lists
from services.settings import Settings
from tests.encoding import encoding

WORDS = (
    "wind", "tunnel", "pressure", "supersonic", "flow", "heat", "transfer", "wing", "slipstream", "boundary", "layer",
    "shock", "wave",
)  # fmt: skip
# Every pair of words once, some texts several windows long, one word that only a title has.
TEXTS = [f"{first} {second} and the {first}." for first, second in itertools.combinations(WORDS, 2)]
DOCUMENTS = [CorpusDocument(f"d{n}", "", text * (1 + 60 * (n % 7 == 0))) for n, text in enumerate(TEXTS)]
DOCUMENTS.append(CorpusDocument("titled", "Aerofoil", "a wing"))
QUERIES = (
    "supersonic flow",
    "the heat of the boundary layer",
    "aerofoil wing",
    "wing wing wing",
    "nothing of the sort",
)
# Contributions are doubles; the engine rounds each product and the sum to float32.
RELATIVE = 1e-6


@pytest.fixture(scope="module")
def api(new_service: Callable[..., AbstractContextManager[tuple[httpx.Client, Settings]]]) -> Iterator[httpx.Client]:
    """Yield a client of an API with the index of the documents. No test writes to it."""
    with new_service() as (client, settings):
        live = LiveIndex(client, "explained")
        live.create({})
        live.load(DOCUMENTS)
        encoding(settings)()
        yield client


def search(api: httpx.Client, query: str, **options: Any) -> dict[str, Any]:
    answer = api.post("/v1/indexes/explained/search", json={"query": query, **options}).raise_for_status().json()
    assert isinstance(answer, dict)
    return answer


def check_why(hit: dict[str, Any]) -> None:
    for name in ("sparse", "lexical"):
        parts = [why["contribution"] for why in hit["why"] if why["list"] == name]
        if name in hit["scores"]:
            assert sum(parts) == pytest.approx(hit["scores"][name], rel=RELATIVE), (name, hit)
        else:
            assert parts == [], f"{hit['id']} is not in the {name} list, so that list added nothing to its score"
    for why in hit["why"]:
        if why["list"] == "sparse":
            product = why["query_weight"] * why["document_weight"]
            assert why["contribution"] == pytest.approx(product, rel=1e-12)


def test_contributions_add_up_to_the_score(api: httpx.Client) -> None:
    explained = 0
    for query, mode in itertools.product(QUERIES, ("sparse", "lexical", "hybrid")):
        answer = search(api, query, mode=mode, size=100, candidates=100, explain=True)
        for hit in answer["hits"]:
            check_why(hit)
            explained += len(hit["why"])
            if mode != "hybrid":
                assert hit["scores"] == {mode: hit["score"]}
                assert "fusion" not in hit
    assert explained > 100


@pytest.mark.parametrize("fusion", ["min_max", "z_score", {"method": "rrf", "k": 7}])
def test_a_fused_score_is_the_sum_of_what_the_lists_gave(api: httpx.Client, fusion: Any) -> None:
    """Compute the fused score by hand from the token weights: each list's scaled contributions times its share."""
    for query, weights in itertools.product(QUERIES[:3], ({"sparse": 3, "lexical": 1}, {"sparse": 0, "lexical": 1})):
        options = {"fusion": fusion, "weights": weights, "candidates": 20, "explain": True}
        for hit in search(api, query, size=20, **options)["hits"]:
            check_why(hit)
            assert hit["fusion"].keys() == hit["scores"].keys()
            for name, part in hit["fusion"].items():
                assert part["share"] == weights[name] / sum(weights.values())
                assert part["contribution"] == part["share"] * part["scaled"]
            assert sum(part["contribution"] for part in hit["fusion"].values()) == pytest.approx(
                hit["score"], rel=1e-12
            )
        assert "fusion" not in search(api, query, size=1)["hits"][0]


def test_a_list_that_does_not_name_a_document_adds_nothing(api: httpx.Client) -> None:
    """With short lists many documents are in only one list. The other list must contribute nothing to them."""
    one_sided = 0
    for query in QUERIES[:3]:
        for hit in search(api, query, mode="hybrid", size=10, candidates=5, explain=True)["hits"]:
            check_why(hit)
            one_sided += len(hit["scores"]) == 1
    assert one_sided


def test_hybrid_is_the_fusion_of_the_two_lists(api: httpx.Client) -> None:
    """Compute min-max fusion by hand from the lists of the other two modes, with several weights."""
    given = (None, {"sparse": 1, "lexical": 1}, {"sparse": 0, "lexical": 2}, {"sparse": 9, "lexical": 1})
    for query, weights in itertools.product(QUERIES, given):
        lists = {
            mode: {hit["id"]: hit["score"] for hit in search(api, query, mode=mode, size=50)["hits"]}
            for mode in ("sparse", "lexical")
        }
        options = {"weights": weights} if weights else {}
        hits = search(api, query, mode="hybrid", size=50, candidates=50, **options)["hits"]
        shares = weights or _default_weights(api)
        total = sum(shares.values())
        by_hand = {
            document: sum(shares[mode] / total * _scaled(scores, document) for mode, scores in lists.items())
            for document in lists["sparse"].keys() | lists["lexical"].keys()
        }
        assert [hit["score"] for hit in hits] == pytest.approx(sorted(by_hand.values(), reverse=True)[:50], abs=1e-12)
        for hit in hits:
            assert hit["score"] == pytest.approx(by_hand[hit["id"]], abs=1e-12)
            assert hit["scores"] == {mode: scores[hit["id"]] for mode, scores in lists.items() if hit["id"] in scores}
        assert fuse_lists(lists, shares)[:50] == [(hit["id"], hit["score"]) for hit in hits]


def _scaled(scores: dict[str, float], document: str) -> float:
    if document not in scores:
        return 0.0
    low, high = min(scores.values()), max(scores.values())
    return 1.0 if low == high else (scores[document] - low) / (high - low)


def _default_weights(api: httpx.Client) -> dict[str, float]:
    """Return the default weights from the API's description."""
    fields = api.get("/openapi.json").json()["components"]["schemas"]["FusionWeights"]["properties"]
    return {name: fields[name]["default"] for name in ("sparse", "lexical")}
