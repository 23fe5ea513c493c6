"""Short writes while another index is loaded."""

from collections.abc import Callable

import httpx
import pytest

from tests.faults.conftest import NewStack
from tests.faults.door import Door
from tests.faults.processes import wait_for

LOADED, SHORT = 60, 5


@pytest.mark.faults_slow
def test_short_writes_pass_the_load_of_another_index(new_stack: NewStack, row: Callable[..., None]) -> None:
    """The load is twelve messages, which one worker process encodes in twelve seconds."""

    def still_waiting(*without: str) -> int:
        stack = new_stack(message_documents=5)
        _, url = stack.api(*without)
        with Door(url) as door, httpx.Client(base_url=f"{url}/v1/indexes", trust_env=False) as client:
            door.create_index()
            assert client.put("/notes").status_code == 201
            door.post({f"d{number}": f"slowpoison {number}" for number in range(LOADED)})
            stack.worker(SLOW_SECONDS="0.2")
            for number in range(SHORT):
                assert (
                    client.put(f"/notes/documents/{number}", json={"text": f"a short note {number}"}).status_code == 202
                )

            def pending() -> int:
                return sum(
                    client.get(f"/notes/documents/{number}").json()["state"] == "pending" for number in range(SHORT)
                )

            wait_for(lambda: not pending() or stack.pending() <= LOADED // 3, 60, "two thirds of the load are done")
            return pending()

    row(
        fault="short writes come while another index is loaded",
        promise="P1",
        protection="an interactive lane goes before loads, and indexes take turns",
        counted="short writes that wait for the load",
        without=still_waiting("lanes"),
        with_it=still_waiting(),
    )
