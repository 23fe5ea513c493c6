"""The query table of an API does not belong to the vectors of an index."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from services.encoders.manifest import MANIFEST_FILE, WEIGHTS_ROOT, Manifest, compute_fingerprint, describe_file
from tests.faults.door import Door
from tests.faults.stack import INDEX, Stack

NewStack = Callable[..., Stack]
RowOf = Callable[..., None]
WORDS = [
    "river", "bridge", "castle", "garden", "window", "mountain", "candle", "harbour", "lantern", "orchard",
    "pepper", "violin", "meadow", "copper", "feather", "planet", "saddle", "thunder", "walnut", "zebra",
]  # fmt: skip


@pytest.fixture
def foreign_encoder(tmp_path: Path) -> Path:
    """Write a copy of the stand-in's model with another order of the vocabulary. Its vectors have other meanings."""
    directory = tmp_path / "foreign"
    shutil.copytree(WEIGHTS_ROOT / "standin", directory)
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    words = [piece for piece, number in vocabulary.items() if number >= 1000]
    numbers = [vocabulary[piece] for piece in words]
    random.Random(1).shuffle(numbers)
    vocabulary.update(zip(words, numbers, strict=True))
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    manifest = json.loads((directory / MANIFEST_FILE).read_text()) | {"name": "foreign"}
    files = {name: describe_file(directory / name) for name in manifest["files"]}
    manifest |= {
        "files": {name: one.model_dump() for name, one in files.items()},
        "fingerprint": compute_fingerprint(files),
    }
    Manifest.model_validate(manifest)
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest))
    return directory


def wrong_answers(url: str) -> int:
    """Search for each document's unique word. Return how many responses do not rank that document first."""
    wrong = 0
    with httpx.Client(base_url=url, trust_env=False, timeout=10) as api:
        for word in WORDS:
            answer = api.get(f"/v1/indexes/{INDEX}/search", params={"q": word, "mode": "sparse"})
            if answer.is_success:
                wrong += [hit["id"] for hit in answer.json()["hits"]][:1] != [word]
            else:
                assert (answer.status_code, answer.json()["code"]) == (503, "encoder_mismatch"), answer.text
                assert "foreign" in answer.json()["detail"], "it says which encoder it lacks"
    return wrong


def test_the_api_holds_another_query_table(new_stack: NewStack, foreign_encoder: Path, row: RowOf) -> None:
    stack = new_stack()
    _, right = stack.api(encoder=foreign_encoder)
    with Door(right) as door:
        door.create_index()
        # each document also has the next word once, so every query has several hits to rank
        door.post({word: f"{word} {word} {WORDS[i - 1]}" for i, word in enumerate(WORDS)})
        stack.worker(encoder=foreign_encoder)
        assert stack.settle() == 0
    assert wrong_answers(right) == 0
    _, other = stack.api()
    ready = httpx.get(f"{other}/readyz", timeout=30, trust_env=False)
    assert (ready.status_code, ready.json()["code"]) == (503, "encoder_mismatch")
    assert "foreign" in ready.json()["detail"]
    _, careless = stack.api("query_tables")
    row(
        fault="the API holds another encoder's query table",
        promise="P7",
        protection="fingerprints: the API is not ready and refuses to search",
        counted=f"of {len(WORDS)} queries answered wrongly",
        without=wrong_answers(careless),
        with_it=wrong_answers(other),
    )
