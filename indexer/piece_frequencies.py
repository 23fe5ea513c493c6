"""Piece frequencies: count the pieces of a generation's documents, to which searches adapt their query weights.

The sweeper counts a random sample of the encoded documents: 1,000 documents give the figures of a whole collection to
.001 of NDCG@10 (docs/decisions/0241). A generation is counted again once the number of its documents has changed by a
fifth, and after a week. Several sweepers may count: the first record of a version is stored and the others are dropped.
"""

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from services.dates import days_ms, now_ms
from services.documents.document import joined_text
from services.encoders.catalogue import KnownEncoder
from services.encoders.piece_frequencies import MIN_DOCUMENTS, PieceCounter, PieceFrequencies
from services.encoders.query_table import QueryTable
from services.errors import Conflict, NotFound, SparsewellError
from services.index_spec import Generation, IndexNames
from services.opensearch.client import SyncSearchClient
from services.opensearch.frequency_records import (
    KEPT_RECORDS,
    FrequencyRecord,
    abandoned_records_call,
    count_encoded_call,
    make_frequency_calls,
    read_encoded_counts,
    read_records,
    read_records_call,
    read_texts_call,
    record_id,
    remove_records_call,
    sample_documents_call,
    save_record_call,
)
from services.opensearch.generations import (
    all_generations_call,
    generation_call,
    read_generation,
    read_writable_generations,
    record_generation_call,
    refresh_call,
)
from services.opensearch.system_indexes import create_system_index_sync
from services.settings import Settings

log = logging.getLogger(__name__)

SAMPLE_DOCUMENTS = 1000
# Characters of a sample. Tokenising takes a second for two million.
SAMPLE_CHARACTERS = 4_000_000
MAX_TEXT_CHARACTERS = SAMPLE_CHARACTERS // MIN_DOCUMENTS
# Documents of one request, which may have a megabyte each.
_PAGE_DOCUMENTS = 20
# A generation is counted again after a change of its documents by this share, and after these days. So a load of a
# million documents is counted about fifty times.
RECOUNT_SHARE = 0.2
RECOUNT_DAYS = 7
# The time for the counts of one pass. The next pass does the rest.
PASS_SECONDS = 5.0


def count_pieces(search: SyncSearchClient, generation: Generation, table: QueryTable, seed: int) -> PieceFrequencies:
    """Count the pieces of a random sample of a generation's encoded documents."""
    counter = PieceCounter()
    for text in _sample_texts(search, generation, seed):
        counter.add(table.ids(text))
    return counter.frequencies()


def _sample_texts(search: SyncSearchClient, generation: Generation, seed: int) -> Iterator[str]:
    """Yield texts of a random sample, at least MIN_DOCUMENTS if there are as many. Long texts are cut."""
    answer = search.send(sample_documents_call(generation, SAMPLE_DOCUMENTS, seed))
    ids = [hit["_id"] for hit in answer["hits"]["hits"]]
    left = SAMPLE_CHARACTERS
    for at in range(0, len(ids), _PAGE_DOCUMENTS):
        read = search.send(read_texts_call(generation, ids[at : at + _PAGE_DOCUMENTS]))
        for document in read["docs"]:
            if document.get("found"):
                source: dict[str, Any] = document["_source"]
                text = joined_text(source.get("title", ""), source.get("text", ""))[:MAX_TEXT_CHARACTERS]
                yield text
                left -= len(text)
        if left <= 0:
            return


@dataclass
class FrequencyUpdate:
    """The counts of all generations that are due. It keeps the query tables between passes."""

    settings: Settings
    search: SyncSearchClient
    known: Sequence[KnownEncoder]
    _tables: dict[str, QueryTable | None] = field(default_factory=dict)
    _existing: set[str] | None = None

    def update(self) -> Counter[str]:
        """Make one pass. Return the number of counted generations. Raises BackendUnavailable or Overloaded."""
        deadline = time.monotonic() + PASS_SECONDS
        names = IndexNames(self.settings.index_prefix)
        existing = self.search.send(all_generations_call(names)) or {}
        self._remove_abandoned(names, existing)
        generations = [
            generation
            for generation in read_writable_generations(existing)
            if generation.spec.adapt_weights and self._table(generation) is not None
        ]
        counts: Counter[str] = Counter()
        if not generations:
            return counts
        records = read_records(self.search.send(read_records_call(names, generations, counts=False)))
        encoded = read_encoded_counts(self.search.send(count_encoded_call(names.every_write_alias)))
        for generation, record in zip(generations, records, strict=True):
            documents = encoded.get(generation.physical, 0)
            if is_due(record, documents, now_ms()) and time.monotonic() < deadline:
                with suppress(NotFound):  # deleted meanwhile
                    counts["generations"] += self._count(generation, documents)
        return counts

    def _remove_abandoned(self, names: IndexNames, existing: Collection[str]) -> None:
        """Remove the records of generations that were deleted, after a change of the existing generations."""
        if self._existing == set(existing):
            return
        self._existing = set(existing)
        with suppress(NotFound):  # There are no records yet.
            answer = self.search.send(abandoned_records_call(names, sorted(existing)))
            if ids := [hit["_id"] for hit in answer["hits"]["hits"]]:
                self.search.send(remove_records_call(names, ids))

    def count_new(self, target: Generation) -> bool:
        """Count a generation that a reindex has built, so that it is compared and searched with adapted weights.

        Return whether the count has been recorded. If OpenSearch does not answer, the sweeper counts later.
        """
        try:
            generation = read_generation(self.search.send(generation_call(target.physical)), target.index)
            if not generation.spec.adapt_weights:
                return False
            self.search.send(refresh_call(target.physical))
            encoded = read_encoded_counts(self.search.send(count_encoded_call(target.physical)))
            return self._count(generation, encoded.get(target.physical, 0))
        except SparsewellError as error:
            log.warning("%s has no adapted query weights yet: %s", target.physical, error)
            return False

    def _count(self, generation: Generation, encoded: int) -> bool:
        """Count a generation and record the result as its newest frequencies. Return whether it has been recorded."""
        table = self._table(generation)
        version = generation.frequencies + 1
        if table is None:
            return False
        frequencies = count_pieces(self.search, generation, table, version)
        if frequencies.documents < MIN_DOCUMENTS:
            return False
        record = FrequencyRecord(
            generation.physical, generation.token, version, generation.encoder.fingerprint, now_ms(), encoded,
            frequencies,
        )  # fmt: skip
        names = IndexNames(self.settings.index_prefix)
        with suppress(Conflict):  # Another sweeper, or an earlier pass that ended here, stored this version.
            self._save(names, record)
        counted = generation.model_copy(update={"frequencies": version, "counted": encoded})
        self.search.send(record_generation_call(counted, generation.write_alias))
        if version > KEPT_RECORDS:
            self.search.send(remove_records_call(names, [record_id(generation, version - KEPT_RECORDS)]))
        return True

    def _save(self, names: IndexNames, record: FrequencyRecord) -> None:
        call = save_record_call(names, record)
        try:
            self.search.send(call)
        except NotFound:
            create_system_index_sync(self.search, make_frequency_calls(names, self.settings.replicas))
            self.search.send(call)

    def _table(self, generation: Generation) -> QueryTable | None:
        """Return the query table of a generation's encoder; None if it cannot be adapted or is not here."""
        fingerprint = generation.encoder.fingerprint
        if fingerprint not in self._tables:
            self._tables[fingerprint] = None
            for known in self.known:
                if known.manifest.fingerprint == fingerprint and known.manifest.reference is not None:
                    self._tables[fingerprint] = QueryTable.load(known.directory)
        return self._tables[fingerprint]


def is_due(record: FrequencyRecord | None, encoded: int, now: int) -> bool:
    """Return whether a generation with `encoded` documents must be counted. `record`: its newest record, if any."""
    if encoded < MIN_DOCUMENTS:
        return False
    if record is None:
        return True
    changed = abs(encoded - record.encoded) > RECOUNT_SHARE * record.encoded
    return changed or (encoded != record.encoded and now - record.at > days_ms(RECOUNT_DAYS))
