"""Haystack 2 component: passages for a pipeline, without a model on the query side.

    pip install haystack-ai
    python -m examples.haystack_retriever books "a captain who hunts a whale"

HAYSTACK_TELEMETRY_ENABLED=False switches off Haystack's own telemetry.
"""

import sys
from typing import Any

from haystack import Document, Pipeline, component, default_from_dict, default_to_dict

from sparsewell_client import Client, Hit


@component
class SparsewellRetriever:
    """A retriever of one index. `options`: members of a search request, such as `mode`, `filter` or `rerank`."""

    def __init__(
        self,
        index: str,
        address: str = "http://127.0.0.1:8010",
        top_k: int = 10,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.index = index
        self.address = address
        self.top_k = top_k
        self.options = options or {}

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, top_k: int | None = None, options: dict[str, Any] | None = None
    ) -> dict[str, list[Document]]:
        """Search the index. `options` are added to the component's and override them."""
        with Client(self.address) as client:
            answer = client.search(self.index, query, size=top_k or self.top_k, **(self.options | (options or {})))
        return {"documents": [to_haystack_document(hit) for hit in answer.hits]}

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a dictionary, for pipelines in YAML."""
        return default_to_dict(self, index=self.index, address=self.address, top_k=self.top_k, options=self.options)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "SparsewellRetriever":
        retriever: SparsewellRetriever = default_from_dict(cls, data)
        return retriever


def to_haystack_document(hit: Hit) -> Document:
    """Convert a hit: its best passage becomes the content, title and metadata become `meta`."""
    meta: dict[str, Any] = {"title": hit.title}
    if hit.passage is not None:
        meta |= {"start": hit.passage.start, "end": hit.passage.end}
    text = hit.passage.text if hit.passage is not None else hit.text
    return Document(id=hit.id, content=text, score=hit.score, meta=(hit.metadata or {}) | meta)


def main(index: str, query: str, address: str = "http://127.0.0.1:8010") -> None:
    pipeline = Pipeline()
    pipeline.add_component("retriever", SparsewellRetriever(index, address, top_k=5))
    for document in pipeline.run({"retriever": {"query": query}})["retriever"]["documents"]:
        print(f"{document.score:.3f}  {document.meta['title'] or document.id}")
        print(f"       {' '.join((document.content or '').split())[:200]}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
