"""Caches of one process for the data of an index that a search needs: its encoder's query table and curation rules.

The curation rules are read in parallel with the index's generation and cached as long. When they cannot be read, a
search fails rather than show documents that the rules hide.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import ValidationError

from services.curation.matching import CompiledRules
from services.curation.rules import Rules
from services.encoders.catalogue import load_known_encoders
from services.encoders.dense_query_table import DenseQueryEncoder
from services.encoders.manifest import Manifest
from services.encoders.piece_frequencies import PieceFrequencies
from services.encoders.query_table import QueryTable
from services.errors import (
    BackendUnavailable,
    ConfigurationError,
    EncoderMismatch,
    InvalidInput,
    NotFound,
    SparsewellError,
)
from services.index_spec import Generation, IndexNames
from services.opensearch.client import AsyncSearchClient
from services.opensearch.curation_records import (
    StoredCuration,
    newest_curation_call,
    older_curations_call,
    read_older_curations,
    read_stored_curation,
)
from services.opensearch.frequency_records import FrequencyRecord, read_records_call, require_record
from services.settings import Settings

log = logging.getLogger(__name__)

# An adapted table has 120 kilobytes for a vocabulary of 30,000 pieces, and its record about as many.
MAX_ADAPTED_TABLES: Final = 300
RecordKey = tuple[str, str, int]
Key = TypeVar("Key")
Value = TypeVar("Value")
CurationReading = StoredCuration | SparsewellError | None


class QueryTableCache:
    """The query tables of one process: the configured encoder's, and others once an index uses them."""

    def __init__(self, settings: Settings) -> None:
        """Read every manifest and load the configured table. Raises ConfigurationError."""
        encoders = load_known_encoders(settings)
        self.default = encoders[0].manifest
        self.manifests = [encoder.manifest for encoder in encoders]
        self._directories = {encoder.manifest.fingerprint: encoder.directory for encoder in encoders}
        # The first of two encoders with the same name is used.
        self._names = {encoder.manifest.name: encoder.manifest for encoder in reversed(encoders)}
        self._tables = {self.default.fingerprint: QueryTable.load(encoders[0].directory)}
        self._dense: dict[str, DenseQueryEncoder | None] = {}
        # Read before the first search, because the check of its file takes milliseconds.
        self._dense_encoder(self.default.fingerprint)
        self._records: OrderedDict[RecordKey, FrequencyRecord] = OrderedDict()
        self._adapted: OrderedDict[tuple[RecordKey, ...], QueryTable] = OrderedDict()

    def of(self, generation: Generation) -> QueryTable:
        """Return the query table for a generation's vectors, adapted to its documents once `prepare` has loaded them.

        Raises EncoderMismatch (`encoder_mismatch`).
        """
        if not generation.frequencies:
            return self.own(generation)
        adapted = self._adapted.get((_record_key(generation),))
        return self._shared([generation]) if adapted is None else adapted

    def of_all(self, generations: Sequence[Generation]) -> list[QueryTable]:
        """Return the query tables for a search of several generations.

        Generations of one encoder share a table, adapted to the documents of all of them, because their raw scores are
        compared. The table keeps the encoder's weights if no generation has frequencies, or if the declaration of one
        generation asks for those weights. Raises EncoderMismatch (`encoder_mismatch`).
        """
        if len(generations) == 1:
            return [self.of(generations[0])]
        by_encoder: dict[str, list[Generation]] = {}
        for generation in generations:
            by_encoder.setdefault(generation.encoder.fingerprint, []).append(generation)
        tables = {fingerprint: self._shared(members) for fingerprint, members in by_encoder.items()}
        return [tables[generation.encoder.fingerprint] for generation in generations]

    def _shared(self, generations: Sequence[Generation]) -> QueryTable:
        """Return the one table of generations of the same encoder."""
        keys = tuple(sorted(key for each in generations if (key := _record_key(each)) in self._records))
        records = [self._records[key] for key in keys]
        if not records or not all(generation.spec.adapt_weights for generation in generations):
            return self.own(generations[0])
        table = self._adapted.get(keys)
        if table is None:
            counted = [(record.frequencies, record.encoded) for record in records if record.frequencies is not None]
            frequencies = counted[0][0] if len(counted) == 1 else PieceFrequencies.combine(counted)
            table = self.own(generations[0]).adapt(frequencies)
            self._adapted[keys] = table
        _keep_latest(self._adapted, keys)
        return table

    async def prepare(self, generation: Generation, search: AsyncSearchClient, names: IndexNames) -> None:
        """Load the piece frequencies that a generation names.

        Raises NotFound (`frequencies_not_found`) if they are no longer kept, BackendUnavailable, and ConfigurationError
        (`bad_frequencies`). `of` then returns the encoder's own table.
        """
        key = _record_key(generation)
        if not generation.frequencies or not generation.spec.adapt_weights:
            return
        if key not in self._records:
            record = require_record(await search.send(read_records_call(names, [generation], counts=True)))
            if record.encoder != generation.encoder.fingerprint or record.frequencies is None:
                raise NotFound("frequencies_not_found", "The frequencies of pieces belong to another encoder.")
            # Adapted here, so that an error of the frequencies is found before a search.
            self._adapted[(key,)] = self.own(generation).adapt(record.frequencies)
            self._records[key] = record
        _keep_latest(self._records, key)

    def own(self, generation: Generation) -> QueryTable:
        """Return the encoder's own query table for a generation. Raises EncoderMismatch (`encoder_mismatch`)."""
        fingerprint = generation.encoder.fingerprint
        if fingerprint not in self._directories:
            raise EncoderMismatch(
                "encoder_mismatch",
                f"The index {generation.index!r} was encoded by {generation.encoder.name} ({fingerprint}), but this "
                f"service holds {', '.join(sorted(self._directories))}: name its model directory in "
                "SPARSEWELL_MORE_ENCODERS.",
            )
        try:
            return self._load(fingerprint)
        except ConfigurationError as error:
            raise EncoderMismatch("encoder_mismatch", error.detail) from error

    def dense(self, generation: Generation) -> DenseQueryEncoder | None:
        """Return the encoder of queries for a generation's dense vectors; None: it has no table or no vectors."""
        return None if generation.dense is None else self._dense_encoder(generation.dense.fingerprint)

    def _dense_encoder(self, fingerprint: str) -> DenseQueryEncoder | None:
        """Return the dense query table of an encoder. A table that cannot be read costs no search."""
        if fingerprint in self._dense or fingerprint not in self._directories:
            return self._dense.get(fingerprint)
        directory = self._directories[fingerprint]
        try:
            self._dense[fingerprint] = DenseQueryEncoder.load(directory, self._load(fingerprint))
        except ConfigurationError as error:
            log.warning("searches do not rerank by the table of %s: %s", directory, error)
            self._dense[fingerprint] = None
        return self._dense[fingerprint]

    def _load(self, fingerprint: str) -> QueryTable:
        """Return the query table of a known encoder, read at its first use. Raises ConfigurationError."""
        if fingerprint not in self._tables:
            self._tables[fingerprint] = QueryTable.load(self._directories[fingerprint])
        return self._tables[fingerprint]

    def serves(self, fingerprint: str) -> bool:
        """Return whether the service has the query table of an encoder."""
        return fingerprint in self._directories

    def manifest(self, name: str | None) -> Manifest:
        """Return the manifest of an encoder by name; None is the configured one.

        Raises InvalidInput (`unknown_encoder`).
        """
        if name is None:
            return self.default
        try:
            return self._names[name]
        except KeyError:
            known = ", ".join(sorted(self._names))
            raise InvalidInput("unknown_encoder", f"No encoder is called {name[:80]!r} (known: {known}).") from None


def _record_key(generation: Generation) -> RecordKey:
    return generation.physical, generation.token, generation.frequencies


def _keep_latest(cache: OrderedDict[Key, Value], used: Key) -> None:
    """Mark an entry as used, and drop the entries that were not used for the longest time."""
    cache.move_to_end(used)
    while len(cache) > MAX_ADAPTED_TABLES:
        cache.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _CachedCuration:
    reading: CurationReading
    compiled: CompiledRules | None


class CurationCache:
    """The rules of each index as they were last read, compiled once per version."""

    def __init__(self, search: AsyncSearchClient, names: IndexNames, timeout: float) -> None:
        """`timeout`: seconds for one read."""
        self._search: Final = search
        self._names: Final = names
        self._timeout: Final = timeout
        self._cache: dict[str, _CachedCuration] = {}

    async def read(self, index: str, *, prefer_local: bool) -> CurationReading:
        """Read an index's newest rules: the rules, None, or the error, which `of` raises."""
        try:
            return read_stored_curation(
                await self._search.send(
                    newest_curation_call(self._names, index, self._timeout, prefer_local=prefer_local)
                )
            )
        except SparsewellError as error:
            return error

    def remember(self, generation: Generation, reading: CurationReading) -> None:
        """Cache the result of `read` for an index."""
        if not isinstance(reading, StoredCuration) or not reading.of(generation):
            error = reading if isinstance(reading, SparsewellError) else None
            self._cache[generation.index] = _CachedCuration(error, None)
            return
        cached = self._cache.get(generation.index)
        if cached is not None and cached.compiled is not None and isinstance(cached.reading, StoredCuration):
            before, now = cached.reading.record, reading.record
            if (before.lineage, before.version) == (now.lineage, now.version):
                return
        try:
            rules = Rules.model_validate(reading.record.rules)
        except ValidationError:
            unreadable = BackendUnavailable(
                "curation_unreadable",
                "Another version of this service stored the rules of this index; `curation: false` searches without "
                "them.",
            )
            self._cache[generation.index] = _CachedCuration(unreadable, None)
            return
        self._cache[generation.index] = _CachedCuration(reading, CompiledRules(rules, reading.record.version))

    def of(self, generation: Generation) -> CompiledRules | None:
        """Return the rules of an index, None when it has none.

        Raises the error of the last read: an answer without the rules might show documents that they hide.
        """
        cached = self._cache.get(generation.index)
        if cached is None:
            return None
        if isinstance(cached.reading, SparsewellError):
            raise cached.reading
        return cached.compiled

    async def earlier(self, generation: Generation, version: int) -> CompiledRules | None:
        """Read an earlier version of the rules, for the later pages of a search. Version 0 means no rules: None.

        Raises NotFound (`cursor_expired`) for a version that is no longer kept.
        """
        if not version:
            return None
        call = older_curations_call(self._names, generation.index, generation.lineage, [version], rules=True)
        records = read_older_curations(await self._search.send(call))
        if not records:
            raise NotFound("cursor_expired", "The curation rules of these pages are no longer kept: begin again.")
        return CompiledRules(Rules.model_validate(records[0].rules), version)

    def forget(self, index: str) -> None:
        """Drop a deleted index from the cache."""
        self._cache.pop(index, None)
