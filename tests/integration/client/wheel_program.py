"""Use the client with only its dependencies. test_wheel.py runs `wheel_program.py ADDRESS`."""

import asyncio
import sys

from sparsewell_client import AsyncClient, Client, IndexSpec, NotFound, SearchRequest


def blocking(address: str) -> None:
    with Client(address, retry_for=30) as client:
        client.create_index("wheel", IndexSpec(fields={"year": "number"}))
        document = {"id": "moby", "text": "A captain hunts a white whale.", "metadata": {"year": 1851}}
        job = client.add("wheel", [document], key="once").job
        assert client.wait(job.id, seconds=120).states["encoded"] == 1
        answer = client.search("wheel", "captain", filter={"field": "year", "range": {"lt": 1900}}, explain=True)
        assert [hit.id for hit in answer.hits] == ["moby"]
        assert answer.hits[0].passage is not None
        assert answer.hits[0].why
        pages = list(client.pages("wheel", SearchRequest(query="captain", mode="lexical"), size=1))
        assert [hit.id for page in pages for hit in page.hits] == ["moby"]


async def asynchronous(address: str) -> None:
    async with AsyncClient(address) as client:
        found, listed = await asyncio.gather(client.search("wheel", "captain"), client.list_indexes())
        assert [hit.id for hit in found.hits] == ["moby"]
        assert [index.name for index in listed] == ["wheel"]
        await client.delete_index("wheel")
        try:
            await client.search("wheel", "captain")
        except NotFound as error:
            assert error.code == "index_not_found"
        else:
            raise AssertionError("the index was not deleted")


if __name__ == "__main__":
    blocking(sys.argv[1])
    asyncio.run(asynchronous(sys.argv[1]))
    server = {"aiohttp", "cli", "fastapi", "models", "opensearchpy", "orjson", "query_api", "services", "typer"}
    assert not server & sys.modules.keys()
    print("searched")  # noqa: T201
