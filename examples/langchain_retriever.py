"""LangChain retriever: passages for a chain, without a model on the query side.

    pip install langchain-core
    python -m examples.langchain_retriever books "a captain who hunts a whale"

A hit becomes a LangChain Document: `page_content` is its best passage, `metadata` the document's metadata with `id`,
`score`, `title` and the passage's character offsets.
"""

import sys
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from sparsewell_client import AsyncClient, Client, Hit


class SparsewellRetriever(BaseRetriever):
    """A retriever of one index. `options`: members of a search request, such as `mode`, `filter` or `rerank`."""

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
    """Convert a hit. Title, score, offsets and id replace declared metadata of the same name."""
    metadata: dict[str, Any] = {"title": hit.title, "score": hit.score}
    if hit.passage is not None:
        metadata |= {"start": hit.passage.start, "end": hit.passage.end}
    text = hit.passage.text if hit.passage is not None else hit.text or ""
    return Document(id=hit.id, page_content=text, metadata=(hit.metadata or {}) | metadata | {"id": hit.id})


def main(index: str, query: str, address: str = "http://127.0.0.1:8010") -> None:
    for document in SparsewellRetriever(index=index, address=address, k=5).invoke(query):
        print(f"{document.metadata['score']:.3f}  {document.metadata['title'] or document.id}")
        print(f"       {' '.join(document.page_content.split())[:200]}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
