"""The shipped encoder on a real collection: what the live service answers is what its vectors say."""

from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from cli.relevance.collection import Collection, open_collection
from cli.relevance.exact import ExactIndex, rankings
from cli.relevance.in_memory import document_vectors
from cli.relevance.live import LiveIndex
from cli.relevance.metrics import measure
from cli.relevance.session import ask, ingest
from infra.processes import Child
from models.registry import load_encoder
from query_api.search.request import FusionWeights
from services.fusion import fuse
from services.index_spec import IndexSpec
from services.manifest import resolve
from services.query_table import QueryTable
from services.settings import Settings
from services.vectors import SparseVector
from tests.congruence import oracle

CRANFIELD = Path(__file__).resolve().parents[3] / "shared" / "data" / "collections" / "cranfield"
ENCODER = "bootstrap-minilm-l6"
SIZE = 100
# What the issue allows between live figures and the same vectors scored in memory.
TOLERANCE = 0.002


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # (whole queries: what pruning leaves out is no part of these scores)
    return settings.model_copy(update={"encoder": ENCODER, "prune": 0.0})


@pytest.fixture(scope="module")
def cranfield() -> Collection:
    if not CRANFIELD.is_dir():
        pytest.skip("the collection cranfield is not there (../shared/data/collections)")
    return open_collection(CRANFIELD)


@pytest.fixture(scope="module")
def vectors(cranfield: Collection) -> dict[str, SparseVector]:
    encoder = load_encoder(ENCODER)
    top_k = IndexSpec.model_validate({}).document_top_k
    return document_vectors(encoder, cranfield.documents(), encoder.manifest.window, top_k)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cranfield_live_is_cranfield_in_memory(
    cranfield: Collection, vectors: Mapping[str, SparseVector], api: httpx.Client, worker: Child
) -> None:
    """Every score of every list, then the figures. The vectors here are made in another process than the worker's."""
    table = QueryTable.load(resolve(ENCODER))
    queries = {query: table.encode(text, 1000).by_id() for query, text in cranfield.judged.items()}
    index = LiveIndex(api, "cranfield")
    index.create({})
    ingested = ingest(index, cranfield, lambda stage, done, total: None)
    assert ingested.states["encoded"] == len(vectors)
    assert not ingested.loaded.rejected
    live = ask(index, cranfield, ("sparse", "lexical", "hybrid"), SIZE, None, lambda stage, done, total: None)

    whole = oracle.Oracle({name: _plain(vector) for name, vector in vectors.items()})
    sparse = live["sparse"].asked.rankings
    for query, pieces in queries.items():
        # the answer has as many digits as a float32 needs
        hits = [(name, oracle.float32(score)) for name, score in sparse[query]]
        oracle.check(whole.scores(pieces), hits, SIZE)

    lexical = live["lexical"].asked.rankings
    weights = FusionWeights.model_validate({}).model_dump()
    for query, fused in live["hybrid"].asked.rankings.items():
        assert fused == fuse({"sparse": dict(sparse[query]), "lexical": dict(lexical[query])}, weights)[:SIZE]

    judgements = cranfield.known_judgements()
    in_memory = measure(judgements, rankings(ExactIndex(vectors), queries, SIZE)).mean
    for name, value in live["sparse"].quality.mean.items():
        assert value == pytest.approx(in_memory[name], abs=TOLERANCE), name
    assert live["sparse"].quality.mean["ndcg@10"] > 0.3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_exact_search_agrees_with_the_oracle(vectors: Mapping[str, SparseVector], cranfield: Collection) -> None:
    """The in-memory figures stand on this search: every score of every query."""
    table = QueryTable.load(resolve(ENCODER))
    index = ExactIndex(vectors)
    whole = oracle.Oracle({name: _plain(vector) for name, vector in vectors.items()})
    for text in cranfield.judged.values():
        pieces = table.encode(text, 1000).by_id()
        oracle.check(whole.scores(pieces), index.search(pieces, len(vectors)), len(vectors))


def _plain(vector: SparseVector) -> dict[int, float]:
    return dict(zip(vector.ids.tolist(), vector.weights.tolist(), strict=True))
