"""The measuring command on a collection of a few sentences."""

import json
from pathlib import Path

import pytest

from models.decoder.measure import build_collection_table, main
from services.encoders.query_table import QueryTable
from tests.training.decoder.tiny_decoder import SENTENCES


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    folder = tmp_path / "sentences"
    folder.mkdir()
    rows = [json.dumps({"_id": f"d{i}", "title": "", "text": text}) for i, text in enumerate(SENTENCES)]
    (folder / "corpus.jsonl").write_text("\n".join(rows))
    queries = [json.dumps({"_id": f"q{i}", "text": text.split()[-1]}) for i, text in enumerate(SENTENCES)]
    (folder / "queries.jsonl").write_text("\n".join(queries))
    judged = [f"q{i}\td{i}\t1" for i in range(len(SENTENCES))]
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]))
    return folder


def test_a_report_names_its_machine_and_collection(directory: Path, collection: Path, tmp_path: Path) -> None:
    main([str(directory), str(collection), "--out", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text())
    found = report["collections"]["sentences"]
    assert found["documents"] == len(SENTENCES)
    assert 0 <= found["ndcg_at_10"] <= 1
    assert found["documents_a_second"] > 0
    assert 0 < found["weights_a_document"] <= 64
    assert report["fingerprint"] == json.loads((directory / "manifest.json").read_text())["fingerprint"]
    assert report["machine"]["precision"] == "float32"
    for encoder, at, said in (
        ("nobody", collection, "unknown_encoder"),
        (str(directory), tmp_path, "collection_not_found"),
    ):
        with pytest.raises(SystemExit, match=said):
            main([encoder, str(at), "--out", str(tmp_path / "other.json")])


def test_the_table_of_a_collection_weighs_rare_words(directory: Path) -> None:
    table = QueryTable.load(directory)
    own = build_collection_table(directory, table, SENTENCES)
    weights = {own.piece(i): weight for i, weight in own.encode("the cat", 10).by_id().items()}
    assert weights["the"] < weights["cat"]
    assert set(own.weighted_ids()) <= set(table.weighted_ids())
