"""Exports of published encoders give the vectors and query weights of sentence-transformers."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SparseEncoder

from models.export.export import ExportOptions, export_encoder
from models.registry import load_encoder
from services.encoders.manifest import Manifest
from services.encoders.query_table import QueryTable
from tests.training.hub.published import LONGEST, PIECES, SPECIAL, as_published, as_published_first, as_saved, original

TEXTS = ["the weather in new york", "Cats? dogs. A house", "x", "it is rainy now " * 3]
ORDINARY = np.array([piece not in SPECIAL for piece in PIECES])


def exported(source: Path, out: Path, **options: object) -> Manifest:
    return export_encoder(ExportOptions(str(source), out, precision="fp32", **options))


def assert_equal(model: SparseEncoder, out: Path) -> None:
    """Compare the encoders without special pieces, which have no weight here and are in no query."""
    encoder, table = load_encoder(str(out), threads=1), QueryTable.load(out)
    documents = model.encode_document(TEXTS, convert_to_sparse_tensor=False).numpy()
    queries = model.encode_query(TEXTS, convert_to_sparse_tensor=False).numpy()
    assert (documents > 0).sum() > 40
    for text, document, query in zip(TEXTS, documents, queries, strict=True):
        # Not through SparseVector, which truncates weights to the two bytes of the index.
        ids, weights = encoder.run([encoder.windows(text)[0].piece_ids])  # type: ignore[attr-defined]
        found = np.zeros(len(PIECES), np.float32)
        found[ids[0]] = weights[0]
        np.testing.assert_allclose(found[ORDINARY], document[ORDINARY], atol=1e-4)
        assert not found[~ORDINARY].any()
        encoded = np.zeros(len(PIECES), np.float32)
        for index, weight in table.encode(text, 100).by_id().items():
            encoded[index] = weight
        np.testing.assert_allclose(encoded[ORDINARY], query[ORDINARY], atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize(
    ("activation", "ours"), [("relu", "log1p_relu"), ("log1p_relu", "log1p_log1p_relu")], ids=["v2", "v3"]
)
@pytest.mark.parametrize("layout", [as_saved, as_published])
def test_a_router_layout_gives_the_same_vectors(
    tmp_path: Path, layout: Callable[..., Path], activation: str, ours: str, family: str
) -> None:
    source = layout(tmp_path / "source", family, activation)
    manifest = exported(source, tmp_path / "tiny")
    assert manifest.model_extra is not None
    assert manifest.model_extra["activation"] == ours
    assert manifest.max_pieces == LONGEST
    assert manifest.window.pieces == LONGEST - 2
    assert manifest.licence == ("apache-2.0" if layout is as_published else "unstated")
    assert_equal(original(source), tmp_path / "tiny")


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_the_plain_layout_gives_the_same_vectors(tmp_path: Path, family: str) -> None:
    source = as_published_first(tmp_path / "source", family)
    exported(source, tmp_path / "tiny", activation="log1p_relu")
    # sentence-transformers saves the same weights here, because write_start has a fixed seed.
    assert_equal(original(as_saved(tmp_path / "same", family)), tmp_path / "tiny")


def test_the_table_may_be_lines_or_a_named_file(tmp_path: Path) -> None:
    source = as_published_first(tmp_path / "plain", "bert")
    idf = json.loads((source / "idf.json").read_text())
    (source / "idf.json").unlink()
    (source / "query_token_weights.txt").write_text("".join(f"{piece}\t{weight}\n" for piece, weight in idf.items()))
    exported(source, tmp_path / "lines", activation="log1p_relu")

    source = as_published(tmp_path / "named", "bert")
    query = source / "query_0_SparseStaticEmbedding"
    (query / "model.safetensors").unlink()
    (query / "config.json").write_text(json.dumps({"frozen": True, "path": "/somebody/elsewhere/idf.json"}))
    exported(source, tmp_path / "json")
    lines, named = (QueryTable.load(tmp_path / name).weighted() for name in ("lines", "json"))
    assert lines == named
    assert dict(lines) == {piece: pytest.approx(weight) for piece, weight in idf.items()}


def test_tokenisers_may_differ_in_unused_members(tmp_path: Path) -> None:
    """A published directory has the model's tokenizer.json, and a second tokenizer.json from years later."""
    source = as_published(tmp_path / "source", "distilbert")
    path = source / "query_0_SparseStaticEmbedding" / "tokenizer.json"
    other = {"post_processor": None, "decoder": None, "padding": None, "truncation": None, "version": "2.0"}
    path.write_text(json.dumps(json.loads(path.read_text()) | other))
    exported(source, tmp_path / "tiny")
    assert_equal(original(as_published(tmp_path / "same", "distilbert")), tmp_path / "tiny")


def test_the_published_value_of_doc_v2_distill(tmp_path: Path) -> None:
    """The model card states a score of 17.5307 for this query and document."""
    directory = os.environ.get("SPARSEWELL_DOC_V2_DISTILL")
    if not directory:
        pytest.skip("set SPARSEWELL_DOC_V2_DISTILL to a directory of opensearch-neural-sparse-encoding-doc-v2-distill")
    plain = not (Path(directory) / "router_config.json").is_file()
    exported(Path(directory), tmp_path / "doc-v2-distill", activation="log1p_relu" if plain else None)
    encoder, table = load_encoder(str(tmp_path / "doc-v2-distill")), QueryTable.load(tmp_path / "doc-v2-distill")
    ids, weights = encoder.run(  # type: ignore[attr-defined]
        [encoder.windows("Currently New York is rainy.")[0].piece_ids]
    )
    query = table.encode("What's the weather in ny now?", 100).by_id()
    score = sum(
        query.get(index, 0.0) * weight for index, weight in zip(ids[0].tolist(), weights[0].tolist(), strict=True)
    )
    assert score == pytest.approx(17.5307, abs=2e-4)
