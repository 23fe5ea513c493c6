"""The query table of an API does not belong to the vectors of an index."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from infra.ports import find_free_port
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
    assert (ready.status_code, ready.json()["checks"]["query_tables"]) == (200, "encoder_mismatch")
    assert [one["encoder"] for one in ready.json()["unserved"]["first"]] == ["foreign"]
    _, careless = stack.api("query_tables")
    row(
        fault="the API holds another encoder's query table",
        promise="P7",
        protection="fingerprints: the API refuses to search that index, and says which",
        counted=f"of {len(WORDS)} queries answered wrongly",
        without=wrong_answers(careless),
        with_it=wrong_answers(other),
    )


def test_a_new_encoder_is_rolled_out_and_back(new_stack: NewStack, foreign_encoder: Path, row: RowOf) -> None:
    """Processes of two versions of the API serve one installation; the new version declares an index of its encoder."""
    stack = new_stack()
    metrics = find_free_port()
    _, old = stack.api(metrics_port=metrics)
    with Door(old) as door:
        door.create_index()
        door.post({word: word for word in WORDS})
        stack.worker()
        assert stack.settle() == 0
    newer, new = stack.api(encoder=foreign_encoder, more_encoders="standin")
    with httpx.Client(trust_env=False, timeout=30) as client:
        client.put(f"{new}/v1/indexes/fresh").raise_for_status()
        _, careless = stack.api("own_readiness")

        def out_of_service(*urls: str) -> int:
            """Count the processes that leave the Service, although they can search the index that all of them know."""
            found = [client.get(f"{url}/v1/indexes/{INDEX}/search", params={"q": WORDS[0]}).json() for url in urls]
            assert all(answer["hits"][0]["id"] == WORDS[0] for answer in found)
            return sum(not client.get(f"{url}/readyz").is_success for url in urls)

        rolled_out = out_of_service(old, new)
        refused = client.get(f"{old}/v1/indexes/fresh/search", params={"q": "x"})
        assert (refused.status_code, refused.json()["code"]) == (503, "encoder_mismatch")
        assert client.get(f"{new}/v1/indexes/fresh/search", params={"q": "x"}).is_success
        samples = client.get(f"http://127.0.0.1:{metrics}/metrics").text.splitlines()
        assert {'sparsewell_ready{process="api"} 1.0', 'sparsewell_unserved_indexes{encoder="foreign"} 1.0'} <= {
            *samples
        }
        newer.close()
        _, again = stack.api()  # `helm rollback` starts the old version beside an index of the new one
        rolled_back = out_of_service(old, again)
        row(
            fault="a new encoder is rolled out, used by one index, and rolled back",
            promise="P7",
            protection="readiness depends on no index",
            counted="API processes that leave the Service",
            without=out_of_service(careless),
            with_it=rolled_out + rolled_back,
        )
