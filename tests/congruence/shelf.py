"""Provide documents with every kind of metadata and filters over them, and compute the matches one document at a time.

The module uses none of the service's filter parsing. Each date comes with the moments that it stands for.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from services.documents.document import raw_version
from services.index_spec import FieldType
from services.opensearch.bulk import WriteOutcome, write_bulk
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import refresh_call
from services.opensearch.journal import PENDING, encoded_write, tombstone_write
from services.opensearch.stored_document import EncodedWindow, StoredDocument
from tests.congruence.node_index import SECONDS, NodeIndex, fresh_index, vector

FIELDS: dict[str, FieldType] = {
    "genre": "keyword", "code": "keyword", "year": "number", "price": "number", "printed": "date", "lent": "boolean",
    "blurb": "text",
}  # fmt: skip
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GENRES = ["poem", "Poem", "novel", "", "novel/sea", "novel/see", "日本", "\U0001f600", "a b", "*", "é"]
NUMBERS = [0, -0.0, 1, 1.0, -1, 2, 5e-324, -5e-324, 1.5, 1.7e308, -1.7e308, 2**53, 2**53 + 1, 1990, 1999.5, 0.1, 1e-9]
WORDS = ["sea", "whale", "captain", "obsession", "time"]


@dataclass(frozen=True)
class Moment:
    """A date in its written form, with the first and the last millisecond that it stands for."""

    text: str
    first: int
    last: int


def moment(when: datetime, precision: str, offset: int | None) -> Moment:
    """Return `when` in UTC to the day, minute, second or millisecond. `offset` is in minutes; None writes no offset."""
    length = {"day": 86_400_000, "minute": 60_000, "second": 1000, "milli": 1}[precision]
    spec = {"minute": "minutes", "second": "seconds", "milli": "milliseconds"}
    if precision == "day":
        begun = when.replace(hour=0, minute=0, second=0, microsecond=0)
        text = begun.date().isoformat()
    else:
        seconds = 0 if precision == "minute" else when.second
        micro = when.microsecond // 1000 * 1000 if precision == "milli" else 0
        begun = when.replace(second=seconds, microsecond=micro)
        local = begun + timedelta(minutes=offset or 0)
        text = local.replace(tzinfo=None).isoformat(timespec=spec[precision])
        if offset is not None:
            text += f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}" if offset else "Z"
    first = (begun - EPOCH) // timedelta(milliseconds=1)
    return Moment(text, first, first + length - 1)


def _moments(seed: int, count: int) -> list[Moment]:
    chosen = random.Random(seed)
    # around two New Year's Eves, so that many dates share a day, an hour or a minute
    centres = [datetime(1969, 12, 31, 23, 59, 58, tzinfo=UTC), datetime(2024, 2, 29, 12, tzinfo=UTC)]
    far = [datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)]
    found = []
    for _ in range(count):
        scale = chosen.choice([0.01, 1, 60, 3600, 86_400, 86_400 * 40])
        when = chosen.choice(centres) + timedelta(seconds=chosen.uniform(-3, 3) * scale)
        if chosen.random() < 0.03:
            when = chosen.choice(far)
        precision = chosen.choice(["day", "minute", "second", "milli"])
        offset = None if precision == "day" else chosen.choice([None, 0, 60, -330, 840])
        found.append(moment(when, precision, offset))
    return found


MOMENTS = _moments(1, 150)
_BY_TEXT = {one.text: one for one in MOMENTS}


def documents(count: int, seed: int = 2) -> dict[str, dict[str, Any]]:
    """Return metadata by document id. Each field is missing, empty, null, or has one or several values."""
    chosen = random.Random(seed)
    pools: dict[str, Callable[[], Any]] = {
        "genre": lambda: chosen.choice(GENRES),
        "code": lambda: f"c{chosen.randrange(300):03}",
        "year": lambda: chosen.choice(NUMBERS),
        "price": lambda: round(chosen.uniform(-5, 5), 2),
        "printed": lambda: chosen.choice(MOMENTS).text,
        "lent": lambda: chosen.random() < 0.5,
        "blurb": lambda: " ".join(chosen.choice(WORDS) for _ in range(chosen.randrange(3))),
    }
    found = {}
    for number in range(count):
        metadata: dict[str, Any] = {}
        for field, one in pools.items():
            match chosen.choice(["missing", "null", "empty", "one", "one", "one", "several", "several"]):
                case "null":
                    metadata[field] = None
                case "empty":
                    metadata[field] = []
                case "one":
                    metadata[field] = one()
                case "several":
                    metadata[field] = [one() for _ in range(chosen.randrange(2, 4))]
        found[f"d{number}"] = metadata
    return found


DOCUMENTS = documents(700)
TEXT = "a common word"


def values(metadata: dict[str, Any], field: str) -> list[Any]:
    """Return the values of a field as a list."""
    value = metadata.get(field)
    return value if isinstance(value, list) else [] if value is None else [value]


def holds(written: dict[str, Any], name: str, state: str, metadata: dict[str, Any]) -> bool:
    """Return whether a document satisfies a filter."""
    if "all" in written:
        return all(holds(part, name, state, metadata) for part in written["all"])
    if "any" in written:
        return any(holds(part, name, state, metadata) for part in written["any"])
    if "not" in written:
        return not holds(written["not"], name, state, metadata)
    field = written["field"]
    here = {"_id": [name], "_state": [state]}.get(field) or values(metadata, field)
    if "exists" in written:
        return bool(here) == written["exists"]
    if "match" in written:
        return set(written["match"].split()) <= {word for text in here for word in text.split()}
    if "prefix" in written:
        return any(value.startswith(written["prefix"]) for value in here)
    if "range" in written:
        return any(_within(field, value, written["range"]) for value in here)
    wanted = written.get("any_of", [written.get("is")])
    return any(_equal(field, value, one) for value in here for one in wanted)


def _equal(field: str, value: Any, wanted: Any) -> bool:
    if field == "printed":
        return _BY_TEXT[wanted].first <= _BY_TEXT[value].first <= _BY_TEXT[wanted].last
    if FIELDS.get(field) == "number":
        return float(value) == float(wanted)
    return bool(value == wanted)


def _within(field: str, value: Any, bounds: dict[str, Any]) -> bool:
    for name, bound in bounds.items():
        if field == "printed":
            low, high = _BY_TEXT[bound].first, _BY_TEXT[bound].last
            here = _BY_TEXT[value].first
        else:
            low = high = float(bound)
            here = float(value)
        fits = {"gt": here > high, "gte": here >= low, "lt": here < low, "lte": here <= high}
        if not fits[name]:
            return False
    return True


def _bounds(bound: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    lower = st.one_of(st.none(), st.tuples(st.sampled_from(["gt", "gte"]), bound))
    upper = st.one_of(st.none(), st.tuples(st.sampled_from(["lt", "lte"]), bound))
    return st.tuples(lower, upper).map(lambda pair: dict(filter(None, pair))).filter(bool)


def _conditions() -> st.SearchStrategy[dict[str, Any]]:
    dates = st.sampled_from(MOMENTS).map(lambda one: one.text)
    codes = st.integers(0, 310).map(lambda n: f"c{n:03}")
    numbers = st.one_of(st.sampled_from(NUMBERS), st.floats(-5, 5).map(lambda x: round(x, 2)))
    pools: dict[str, st.SearchStrategy[Any]] = {
        "genre": st.sampled_from(GENRES), "code": codes, "year": numbers, "price": numbers, "printed": dates,
        "lent": st.booleans(), "_id": st.integers(0, 700).map(lambda n: f"d{n}"), "_state": st.just("encoded"),
    }  # fmt: skip
    either = []
    for field, pool in pools.items():
        either.append(st.fixed_dictionaries({"field": st.just(field), "is": pool}))
        either.append(
            st.fixed_dictionaries({"field": st.just(field), "any_of": st.lists(pool, min_size=1, max_size=6)})
        )
    either += [
        st.fixed_dictionaries({"field": st.just(field), "range": _bounds(pools[field])})
        for field in ("year", "price", "printed")
    ]
    prefixes = st.sampled_from([genre[:n] for genre in GENRES for n in (1, 2, 6) if genre])
    either += [
        st.fixed_dictionaries({"field": st.sampled_from(list(FIELDS)), "exists": st.booleans()}),
        st.fixed_dictionaries({"field": st.just("genre"), "prefix": prefixes}),
        st.fixed_dictionaries(
            {
                "field": st.just("blurb"),
                "match": st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join),
            }
        ),
    ]
    return st.one_of(either)


def filters() -> st.SearchStrategy[dict[str, Any]]:
    """Return well-formed filters. A range may be contradictory."""

    def grown(part: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
        parts = st.lists(part, min_size=1, max_size=4)
        return st.one_of(
            st.fixed_dictionaries({"all": parts}),
            st.fixed_dictionaries({"any": parts}),
            st.fixed_dictionaries({"not": part}),
        )

    return st.recursive(_conditions(), grown, max_leaves=10)


@contextmanager
def filled_index(client: SyncSearchClient) -> Iterator[NodeIndex]:
    """Fill an index of two shards and several segments, with tombstones between the documents.

    Every other document has token 6.
    """
    with fresh_index(client, shards=2, fields=FIELDS) as made:
        writes = []
        for number, (name, metadata) in enumerate(DOCUMENTS.items()):
            source = {"text": TEXT, "state": PENDING, "job": "shelf", "version": 1, "metadata": metadata}
            windows = [EncodedWindow(0, len(TEXT), vector({5 + number % 2: 1.0 + number}))]
            writes.append(encoded_write(made.generation, StoredDocument(name, raw_version(1), source), windows))
            if number % 10 == 0:
                gone = tombstone_write(made.generation, f"gone{number}", 1)
                writes.append(replace(gone, alias=made.generation.write_alias))
        for start in range(0, len(writes), 250):
            verdicts = write_bulk(client, writes[start : start + 250], 4 * 1024**2, SECONDS)
            assert {verdict.outcome for verdict in verdicts} == {WriteOutcome.STORED}
            client.send(refresh_call(made.generation.physical))
        yield made
