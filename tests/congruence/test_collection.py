"""Compare the live service with in-memory scores of the same vectors, on a real collection with the shipped encoder."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from cli.relevance.exact_search import ExactIndex, encode_documents, rank_queries
from cli.relevance.live import LiveIndex, ask_queries, ingest_collection
from cli.relevance.metrics import measure_rankings
from infra.processes import ChildProcess
from models.judged_collection import CorpusDocument, JudgedCollection, open_collection
from models.registry import load_encoder
from query_api.schemas.search_request import FusionWeights
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.encoders.vectors import SparseVector
from services.index_spec import IndexSpec
from services.query.fusion import fuse_lists
from services.settings import Settings
from tests.congruence import oracle

CRANFIELD = Path(__file__).resolve().parents[3] / "shared" / "data" / "collections" / "cranfield"
ENCODER = "projected-minilm-l6"
SIZE = 100
# Of 1,398 documents. This part takes a sixth of the time, and each query still scores a hundred of them.
DOCUMENTS = 250
# The allowed difference between the live figures and the in-memory figures of the same vectors.
TOLERANCE = 0.002


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # (whole queries, because the tests do not measure the effect of pruning)
    return settings.model_copy(update={"encoder": ENCODER, "prune": 0.0})


@pytest.fixture(scope="module")
def cranfield(tmp_path_factory: pytest.TempPathFactory) -> JudgedCollection:
    """Load Cranfield's first documents with their judgements and the judged queries."""
    if not CRANFIELD.is_dir():
        pytest.skip("the collection cranfield is not there (../shared/data/collections)")
    whole = open_collection(CRANFIELD)
    documents = list(itertools.islice(whole.documents(), DOCUMENTS))
    known = {document.id for document in documents}
    rows = [(q, d, grade) for q, grades in whole.judgements.items() for d, grade in grades.items() if d in known]
    folder = tmp_path_factory.mktemp("collections") / "cranfield"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text("".join(json.dumps(_record(each)) + "\n" for each in documents))
    query_rows = [{"_id": query, "text": whole.queries[query]} for query in {row[0]: None for row in rows}]
    (folder / "queries.jsonl").write_text("".join(json.dumps(each) + "\n" for each in query_rows))
    (folder / "qrels.tsv").write_text("".join(f"{q}\t{d}\t{grade}\n" for q, d, grade in rows))
    return open_collection(folder)


def _record(document: CorpusDocument) -> dict[str, str]:
    return {"_id": document.id, "title": document.title, "text": document.text}


@pytest.fixture(scope="module")
def vectors(cranfield: JudgedCollection) -> dict[str, SparseVector]:
    encoder = load_encoder(ENCODER)
    top_k = IndexSpec.model_validate({}).document_top_k
    return encode_documents(encoder, cranfield.documents(), encoder.manifest.window, top_k)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cranfield_live_is_cranfield_in_memory(
    cranfield: JudgedCollection, vectors: Mapping[str, SparseVector], api: httpx.Client, worker: ChildProcess
) -> None:
    """Compare every score of every list, then the figures.

    Another process than the worker computes the vectors here.
    """
    table = QueryTable.load(resolve_model_directory(ENCODER))
    queries = {query: table.encode(text, 1000).by_id() for query, text in cranfield.judged.items()}
    index = LiveIndex(api, "cranfield")
    index.create({})
    ingested = ingest_collection(index, cranfield, lambda stage, done, total: None)
    assert ingested.states["encoded"] == len(vectors)
    assert not ingested.loaded.rejected
    live = ask_queries(
        index,
        cranfield,
        {mode: {"mode": mode} for mode in ("sparse", "lexical", "hybrid")},
        SIZE,
        lambda stage, done, total: None,
    )

    whole = oracle.Oracle({name: _plain(vector) for name, vector in vectors.items()})
    sparse = live["sparse"].answers.rankings
    for query, pieces in queries.items():
        # the response has as many digits as a float32 needs
        hits = [(name, oracle.float32(score)) for name, score in sparse[query]]
        oracle.check(whole.scores(pieces), hits, SIZE)

    lexical = live["lexical"].answers.rankings
    weights = FusionWeights.model_validate({}).model_dump()
    for query, fused in live["hybrid"].answers.rankings.items():
        assert fused == fuse_lists({"sparse": dict(sparse[query]), "lexical": dict(lexical[query])}, weights)[:SIZE]

    judgements = cranfield.known_judgements()
    in_memory = measure_rankings(judgements, rank_queries(ExactIndex(vectors), queries, SIZE)).mean
    for name, value in live["sparse"].quality.mean.items():
        assert value == pytest.approx(in_memory[name], abs=TOLERANCE), name
    assert live["sparse"].quality.mean["ndcg@10"] > 0.3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_exact_search_agrees_with_the_oracle(vectors: Mapping[str, SparseVector], cranfield: JudgedCollection) -> None:
    """Compare every score of every query: the in-memory figures depend on the exact search."""
    table = QueryTable.load(resolve_model_directory(ENCODER))
    index = ExactIndex(vectors)
    whole = oracle.Oracle({name: _plain(vector) for name, vector in vectors.items()})
    for text in cranfield.judged.values():
        pieces = table.encode(text, 1000).by_id()
        oracle.check(whole.scores(pieces), index.search(pieces, len(vectors)), len(vectors))


def _plain(vector: SparseVector) -> dict[int, float]:
    return dict(zip(vector.ids.tolist(), vector.weights.tolist(), strict=True))
