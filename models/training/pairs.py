"""Training pairs: queries, passages, and the links that say which passage answers which query.

`PairSet` holds distinct texts and int32 links between them; `split_pairs` holds out whole families of links.

Pair files are JSON lines, {"query": ..., "passage": ..., "origin": ...}, or lines of scored documents, {"query": ...,
"docs": [...], "scores": [...]}: the pair of such a line is the query and its best document. `read_pairs` reads them as
a stream. `write_pairs` writes a file whole or not at all; the same pairs give the same bytes.
"""

import gzip
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from models.training.storage import ReadReport, read_objects, read_text_member
from services.documents.compressed_lines import split_suffixes
from services.errors import InvalidInput

Rows = NDArray[np.int32]


class Pair(NamedTuple):
    """Query and a passage that answers it. `origin` names the set, or how the pair was made."""

    query: str
    passage: str
    origin: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class PairSet:
    """Distinct texts and the links between them.

    Link i says that passage `passage_rows[i]` answers query `query_rows[i]` and comes from `origins[origin_rows[i]]`.
    The three arrays are int32 [links], in the order of the pairs, without duplicates. `repeated` counts duplicate
    pairs, `identical` pairs whose query equals their passage; neither become links.
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
        """Build a set from a stream of pairs. Texts that differ only in white space are one; the first form stays."""
        queries, passages = _TextTable(), _TextTable()
        origins: dict[str, int] = {}
        links: dict[tuple[int, int], int] = {}
        repeated = identical = 0
        for pair in pairs:
            query_key, passage_key = text_digest(pair.query), text_digest(pair.passage)
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
        """Return the number of links."""
        return int(self.query_rows.size)

    def counts(self) -> dict[str, int]:
        """Count links by origin."""
        counts = np.bincount(self.origin_rows, minlength=len(self.origins))
        return dict(zip(self.origins, counts.tolist(), strict=True))

    def pair(self, link: int) -> Pair:
        """Return a link's texts and origin."""
        return Pair(
            self.queries[self.query_rows[link]],
            self.passages[self.passage_rows[link]],
            self.origins[self.origin_rows[link]],
        )

    def take(self, links: NDArray[np.integer] | NDArray[np.bool_]) -> Self:
        """Return the set of these links (positions or a mask), in that order, with only the texts that they need."""
        chosen = np.flatnonzero(links) if links.dtype == np.bool_ else np.asarray(links)
        query_rows, queries = _compact_rows(self.query_rows[chosen], self.queries)
        passage_rows, passages = _compact_rows(self.passage_rows[chosen], self.passages)
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
        """16 hex digits over texts, links and origins in their order."""
        digest = hashlib.sha256()
        for texts in (self.queries, self.passages, self.origins):
            digest.update(texts_fingerprint(texts).encode())
        for rows in (self.query_rows, self.passage_rows, self.origin_rows):
            digest.update(rows.astype("<i4").tobytes())
        return digest.hexdigest()[:16]


def join_pair_sets(sets: Sequence[PairSet]) -> PairSet:
    """Join sets. A text in several sets appears once; a link in several sets keeps its first origin."""
    joined = PairSet.of(pairs.pair(link) for pairs in sets for link in range(len(pairs)))
    return replace(
        joined,
        repeated=joined.repeated + sum(pairs.repeated for pairs in sets),
        identical=sum(pairs.identical for pairs in sets),
    )


def texts_fingerprint(texts: Sequence[str]) -> str:
    """Return 16 hex digits over texts in their order. A lone surrogate is hashed as it is."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class PairSplit:
    """Training and held-out pairs. `train` and `held_out` share no query and no passage."""

    train: PairSet
    held_out: PairSet


def split_pairs(pairs: PairSet, share: float, seed: int, *, most: int | None = None) -> PairSplit:
    """Hold out about `share` of the links at random, at most `most`; the same arguments give the same split.

    Each family stays on one side: a passage, all its queries, all their passages, and so on. Otherwise a title that
    training saw with one paragraph of a page would be a held-out query for another paragraph. A family that is larger
    than the remaining held-out share stays in training (thousands of sections may be called "Introduction").

    Raises InvalidInput (`bad_split`) unless 0 < share < 1, and when either side would be empty.
    """
    if not 0 < share < 1:
        raise InvalidInput("bad_split", f"The held-out share must lie between 0 and 1, not {share}.")
    families = _connected_components(pairs)
    sizes = np.bincount(families, minlength=1)
    target = min(round(share * len(pairs)), len(pairs) if most is None else most)
    is_held_out = np.zeros(sizes.size, dtype=bool)
    remaining = max(1, target)
    for family in np.random.default_rng(seed).permutation(sizes.size).tolist():
        if 0 < sizes[family] <= remaining:
            is_held_out[family] = True
            remaining -= int(sizes[family])
            if not remaining:
                break
    held_out = is_held_out[families] if len(pairs) else np.zeros(0, dtype=bool)
    if not held_out.any() or held_out.all():
        raise InvalidInput(
            "bad_split",
            f"{len(pairs):,} pairs in {int((sizes > 0).sum()):,} groups that share no text cannot be split with a "
            f"share of {share}: give more pairs, or another share.",
        )
    return PairSplit(pairs.take(~held_out), pairs.take(held_out))


def _connected_components(pairs: PairSet) -> NDArray[np.int64]:
    """Number each link's connected component, by union-find with path halving."""
    parent = list(range(len(pairs.queries) + len(pairs.passages)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    ends = (pairs.passage_rows.astype(np.int64) + len(pairs.queries)).tolist()
    for query, passage in zip(pairs.query_rows.tolist(), ends, strict=True):
        first, second = root(query), root(passage)
        # the lower number wins, so that the numbers of families depend only on the order of texts
        parent[max(first, second)] = min(first, second)
    return np.array([root(query) for query in pairs.query_rows.tolist()], dtype=np.int64)


def _compact_rows(rows: Rows, texts: list[str]) -> tuple[Rows, list[str]]:
    """Renumber rows over the texts that they use; these texts keep their order."""
    used, renumbered = np.unique(rows, return_inverse=True)
    return renumbered.astype(np.int32), [texts[row] for row in used.tolist()]


class _TextTable:
    """Distinct texts by the digest of their key: 16 bytes each instead of a second copy."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._rows: dict[bytes, int] = {}

    def row(self, key: bytes, text: str) -> int:
        row = self._rows.setdefault(key, len(self.texts))
        if row == len(self.texts):
            self.texts.append(text)
        return row


def text_digest(text: str) -> bytes:
    """Return 16 bytes that are the same for texts that differ only in white space."""
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def read_pairs(path: Path, report: ReadReport | None = None, origin: str | None = None) -> Iterator[Pair]:
    """Read the pairs of a file (.jsonl, also compressed as .gz, .bz2, .xz, .zst) as a stream.

    A line may name its `origin`; the default is the argument `origin`, or else the file's name. Bad lines are counted
    in `report` and skipped. Raises ConfigurationError (`unreadable_file`), InvalidInput: `damaged_file`, and `no_pairs`
    when no line is valid.
    """
    report = ReadReport(str(path)) if report is None else report
    default = pair_set_name(path) if origin is None else origin
    for number, record in read_objects(path, report):
        try:
            pair = Pair(
                read_text_member(record, "query"),
                read_scored_documents(record).best if "docs" in record else read_text_member(record, "passage"),
                read_text_member(record, "origin", required=False) or default,
            )
        except InvalidInput as error:
            report.refuse(number, error)
        else:
            report.taken += 1
            yield pair
    if not report.taken:
        raise InvalidInput(
            "no_pairs",
            f'{path} has no pairs: each line is {{"query": "...", "passage": "..."}}. '
            + (f"The first lines: {'; '.join(report.examples)}." if report.examples else "The file is empty."),
        )


class ScoredDocuments(NamedTuple):
    """Documents of a query with a teacher's scores, best first."""

    docs: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def best(self) -> str:
        return self.docs[0]


def read_scored_documents(record: Mapping[str, Any]) -> ScoredDocuments:
    """Read `docs` and `scores` of a line: at least two different texts, each with a finite score.

    This is the form of the distillation data of arXiv 2411.04403's authors. Raises InvalidInput: `missing_member`,
    `wrong_type`, `empty_text`, `bad_scores`.
    """
    for name in ("docs", "scores"):
        if name not in record:
            raise InvalidInput("missing_member", f"it has no `{name}`")
        if not isinstance(record[name], list):
            raise InvalidInput("wrong_type", f"`{name}` is {type(record[name]).__name__}, not an array")
    docs = [read_text_member({"docs": text}, "docs") for text in record["docs"]]
    scores = record["scores"]
    if len(docs) != len(scores) or len(docs) < 2:
        raise InvalidInput("bad_scores", f"it has {len(docs)} docs and {len(scores)} scores: give 2 or more of each")
    if not all(type(score) in (int, float) and math.isfinite(score) for score in scores):
        raise InvalidInput("bad_scores", "a score is not a finite number")
    if len({text_digest(text) for text in docs}) < len(docs):
        raise InvalidInput("bad_scores", "a document is there twice")
    order = sorted(range(len(docs)), key=lambda place: -scores[place])
    return ScoredDocuments(tuple(docs[place] for place in order), tuple(float(scores[place]) for place in order))


def write_pairs(path: Path, pairs: Iterable[Pair]) -> int:
    """Write a file that `read_pairs` reads, origins included, compressed when it ends in .gz. Return the number of
    pairs.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        # the archive holds no time and no name, so the same pairs give the same bytes
        with scratch.open("wb") as raw, _open_compressed(raw, path) as file:
            for pair in pairs:
                line = {"query": pair.query, "passage": pair.passage, "origin": pair.origin}
                file.write(orjson.dumps({name: text for name, text in line.items() if text}) + b"\n")
                count += 1
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return count


def pair_set_name(path: Path) -> str:
    """Return the file's name without the suffixes of its format."""
    return path.name.removesuffix(split_suffixes(path)[1]).removesuffix(split_suffixes(path)[0]) or path.name


def _open_compressed(raw: BinaryIO, path: Path) -> AbstractContextManager[BinaryIO]:
    if path.suffix != ".gz":
        return nullcontext(raw)
    return cast(AbstractContextManager[BinaryIO], gzip.GzipFile("", "wb", 6, raw, mtime=0))
