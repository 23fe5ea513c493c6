"""What training learns from: queries, passages, and which passage answers which query."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInput

Rows = NDArray[np.int32]


class Pair(NamedTuple):
    """A query and a passage that answers it. `origin` names the set, or the way in which the pair was made."""

    query: str
    passage: str
    origin: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class PairSet:
    """Distinct texts, and links between them.

    Link i says that passage `passage_rows[i]` answers query `query_rows[i]` and comes from
    `origins[origin_rows[i]]`; all three are int32 [links], in the order in which the pairs came. No link is there
    twice. `repeated` counts pairs that were there already, `identical` those whose query is their passage; neither
    became a link.
    """

    queries: list[str]
    passages: list[str]
    query_rows: Rows
    passage_rows: Rows
    origins: list[str]
    origin_rows: Rows
    repeated: int = 0
    identical: int = 0

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Self:
        """Texts that differ in white space only count as one; the first form stays. Reads `pairs` as a stream."""
        queries, passages = _Texts(), _Texts()
        origins: dict[str, int] = {}
        links: dict[tuple[int, int], int] = {}
        repeated = identical = 0
        for pair in pairs:
            query_key, passage_key = _key(pair.query), _key(pair.passage)
            if query_key == passage_key:
                identical += 1
                continue
            link = queries.row(query_key, pair.query), passages.row(passage_key, pair.passage)
            if link in links:
                repeated += 1
            else:
                links[link] = origins.setdefault(pair.origin, len(origins))
        rows = np.array(list(links), dtype=np.int32).reshape(-1, 2)
        return cls(
            queries.texts,
            passages.texts,
            np.ascontiguousarray(rows[:, 0]),
            np.ascontiguousarray(rows[:, 1]),
            list(origins),
            np.array(list(links.values()), dtype=np.int32),
            repeated,
            identical,
        )

    def __len__(self) -> int:
        """The number of links."""
        return int(self.query_rows.size)

    def counts(self) -> dict[str, int]:
        """Links by origin."""
        found = np.bincount(self.origin_rows, minlength=len(self.origins))
        return dict(zip(self.origins, found.tolist(), strict=True))

    def pair(self, link: int) -> Pair:
        return Pair(
            self.queries[self.query_rows[link]],
            self.passages[self.passage_rows[link]],
            self.origins[self.origin_rows[link]],
        )

    def take(self, links: NDArray[np.integer] | NDArray[np.bool_]) -> Self:
        """The set of these links (positions or a mask), in that order, with the texts that they need and no others."""
        chosen = np.flatnonzero(links) if links.dtype == np.bool_ else np.asarray(links)
        query_rows, queries = _compact(self.query_rows[chosen], self.queries)
        passage_rows, passages = _compact(self.passage_rows[chosen], self.passages)
        return replace(
            self,
            queries=queries,
            passages=passages,
            query_rows=query_rows,
            passage_rows=passage_rows,
            origin_rows=self.origin_rows[chosen],
            repeated=0,
            identical=0,
        )

    @property
    def fingerprint(self) -> str:
        """16 hex digits over texts, links and origins: the same pairs in the same order have the same."""
        digest = hashlib.sha256()
        for texts in (self.queries, self.passages, self.origins):
            digest.update(texts_fingerprint(texts).encode())
        for rows in (self.query_rows, self.passage_rows, self.origin_rows):
            digest.update(rows.astype("<i4").tobytes())
        return digest.hexdigest()[:16]


def join(sets: Sequence[PairSet]) -> PairSet:
    """One set of all links; a text that several hold is there once, a link is of the first set that holds it."""
    joined = PairSet.of(one.pair(link) for one in sets for link in range(len(one)))
    return replace(
        joined,
        repeated=joined.repeated + sum(one.repeated for one in sets),
        identical=sum(one.identical for one in sets),
    )


def texts_fingerprint(texts: Sequence[str]) -> str:
    """16 hex digits over texts in their order. A half of a surrogate counts as it is."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Split:
    """`train` and `held_out` share no query and no passage."""

    train: PairSet
    held_out: PairSet


def split(pairs: PairSet, share: float, seed: int, *, most: int | None = None) -> Split:
    """Holds out about `share` of the links, at most `most`, by chance; the same arguments give the same split.

    Whole families go to one side: a passage, all its queries, all their passages, and so on. Otherwise the title that
    was seen in training with one paragraph of a page would be asked for another. A family that is larger than what is
    left to hold out stays in training (thousands of sections may be called "Introduction").

    Raises InvalidInput (`bad_split`) unless 0 < share < 1, and when either side would be empty.
    """
    if not 0 < share < 1:
        raise InvalidInput("bad_split", f"The share held out lies between 0 and 1, not {share}.")
    family = _families(pairs)
    sizes = np.bincount(family, minlength=1)
    wanted = min(round(share * len(pairs)), len(pairs) if most is None else most)
    held = np.zeros(sizes.size, dtype=bool)
    left = max(1, wanted)
    for one in np.random.default_rng(seed).permutation(sizes.size).tolist():
        if 0 < sizes[one] <= left:
            held[one] = True
            left -= int(sizes[one])
            if not left:
                break
    outside = held[family] if len(pairs) else np.zeros(0, dtype=bool)
    if not outside.any() or outside.all():
        raise InvalidInput(
            "bad_split",
            f"{len(pairs):,} pairs in {int((sizes > 0).sum()):,} groups that share no text cannot be split with a "
            f"share of {share}: give more pairs, or another share.",
        )
    return Split(pairs.take(~outside), pairs.take(outside))


def _families(pairs: PairSet) -> NDArray[np.int64]:
    """For each link the number of its connected component, by union-find with path halving."""
    parent = list(range(len(pairs.queries) + len(pairs.passages)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    ends = (pairs.passage_rows.astype(np.int64) + len(pairs.queries)).tolist()
    for query, passage in zip(pairs.query_rows.tolist(), ends, strict=True):
        first, second = root(query), root(passage)
        # the lower number wins, so that the names of families depend on nothing but the order of texts
        parent[max(first, second)] = min(first, second)
    return np.array([root(query) for query in pairs.query_rows.tolist()], dtype=np.int64)


def _compact(rows: Rows, texts: list[str]) -> tuple[Rows, list[str]]:
    """Rows counted anew over the texts that are named, which keep their order."""
    kept, new = np.unique(rows, return_inverse=True)
    return new.astype(np.int32), [texts[row] for row in kept.tolist()]


class _Texts:
    """Distinct texts by the digest of their key: 16 bytes each instead of a second copy."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._rows: dict[bytes, int] = {}

    def row(self, key: bytes, text: str) -> int:
        found = self._rows.setdefault(key, len(self.texts))
        if found == len(self.texts):
            self.texts.append(text)
        return found


def _key(text: str) -> bytes:
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=16).digest()
