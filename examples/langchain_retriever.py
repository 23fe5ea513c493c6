"""A LangChain retriever over sparsewell: passages for a chain, found without a model on the query side.

    pip install langchain-core
    python -m examples.langchain_retriever books "a captain who hunts a whale"

Each hit comes as one LangChain Document: its best passage as `page_content`, and in `metadata` the document's own
beside `id`, `score`, `title` and the passage's character offsets.
"""

import sys
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from sparsewell_client import AsyncClient, Client, Hit


class SparsewellRetriever(BaseRetriever):
    """Searches one index. `options` are members of a search request, such as `mode`, `filter` or `rerank`."""

    index: str
    address: str = "http://127.0.0.1:8010"
    k: int = 10
    options: dict[str, Any] = Field(default_factory=dict)

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        with Client(self.address) as client:
            answer = client.search(self.index, query, size=self.k, **self.options)
        return [to_langchain_document(hit) for hit in answer.hits]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        async with AsyncClient(self.address) as client:
            answer = await client.search(self.index, query, size=self.k, **self.options)
        return [to_langchain_document(hit) for hit in answer.hits]


def to_langchain_document(hit: Hit) -> Document:
    """A hit as LangChain has it; declared metadata gives way to what every hit has."""
    about: dict[str, Any] = {"title": hit.title, "score": hit.score}
    if hit.passage is not None:
        about |= {"start": hit.passage.start, "end": hit.passage.end}
    text = hit.passage.text if hit.passage is not None else hit.text or ""
    return Document(id=hit.id, page_content=text, metadata=(hit.metadata or {}) | about | {"id": hit.id})


def main(index: str, query: str, address: str = "http://127.0.0.1:8010") -> None:
    for document in SparsewellRetriever(index=index, address=address, k=5).invoke(query):
        print(f"{document.metadata['score']:.3f}  {document.metadata['title'] or document.id}")
        print(f"       {' '.join(document.page_content.split())[:200]}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
