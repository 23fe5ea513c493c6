"""A part of a collection, for documents so long that encoding all of them would take an hour."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from cli.relevance.collection import Collection, CorpusDocument


@dataclass(frozen=True, slots=True)
class Sample(Collection):
    """Every n-th document, and the queries that have something to find among them."""

    every: int = 1

    def documents(self) -> Iterator[CorpusDocument]:
        """The sampled documents in file order."""
        return islice(Collection.documents(self), 0, None, self.every)


def sampled(collection: Collection, every: int) -> Collection:
    """The sample of every n-th document; the collection itself for 1.

    Judgements of other documents are dropped, and with them the queries that have none left. Retrieval among fewer
    documents is easier: compare figures of a sample with each other only.
    """
    if every <= 1:
        return collection
    kept = {document.id for document in islice(collection.documents(), 0, None, every)}
    judgements = {
        query: found
        for query, judged in collection.judgements.items()
        if (found := {document: grade for document, grade in judged.items() if document in kept})
    }
    name = f"{collection.name}, one document in {every}"
    return Sample(name, collection.corpus, collection.queries, judgements, every)
