"""Talk to search in: episodes with chapters that people made, whose titles are the queries, and judged meetings."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.sample import sampled
from cli.relevance.collection import Judgements, open_collection
from models.chapters.episodes import Chaptered, read_episodes
from services.documents import Document, parse_document
from services.index_spec import IndexSpec
from services.talk.talk import Talk

# Titles that name no subject: what every show has, and what sponsors read.
_GENERIC = re.compile(
    r"\b(intro(duction)?s?|outro|conclusions?|summary|agenda|outline|overview|background|references|disclaimer|demo"
    r"|history|future work|next steps|questions?|answers?|q ?& ?a|q/a|sponsors?|ads?|sick picks?|shameless|plugs?"
    r"|thanks?|thank you|welcome|closing|wrap(ping)?[ -]?up|final thoughts|individual updates|cont|continued|misc\w*"
    r"|other|part \d+)\b",
    re.I,
)
_WORD = re.compile(r"[A-Za-z]{3,}")
MOST_WORDS = 12  # longer ones are questions that are read out


@dataclass(frozen=True, slots=True)
class Said:
    """The chapter that a query is the title of: characters of a document's text, and when it begins."""

    document: str
    start: int
    end: int
    second: float | None


@dataclass(frozen=True, slots=True)
class TalkSet:
    """Documents, queries, and what they should find; `said` where a chapter is to be found."""

    name: str
    documents: Sequence[Document]
    queries: dict[str, str]
    judgements: Judgements
    said: dict[str, Said] = field(default_factory=dict)

    def asking(self, most: int) -> "TalkSet":
        """With so many of its queries, in an order by hash."""
        kept = sorted(self.judgements, key=_hash)[:most]
        of = {query: self.said[query] for query in kept if query in self.said}
        return replace(
            self,
            queries={query: self.queries[query] for query in kept},
            judgements={query: self.judgements[query] for query in kept},
            said=of,
        )


def episodes(path: Path, most: int) -> TalkSet:
    """The first so many held-out episodes in an order by hash. Title and transcript are indexed, and nothing of what
    the show's notes say, out of which the queries come.
    """
    name = path.name.partition(".")[0]
    held_out = sorted((one for one in read_episodes(path) if one.held_out), key=lambda one: _hash(one.id))
    chosen = held_out[:most]
    documents = [
        Document(one.id, one.episode.text, one.episode.title, talk=Talk(one.episode.segments)) for one in chosen
    ]
    found = dict(_queries(chosen))
    return TalkSet(
        name,
        documents,
        {query: text for query, (text, _) in found.items()},
        {query: {said.document: 1} for query, (_, said) in found.items()},
        {query: said for query, (_, said) in found.items()},
    )


def _queries(chosen: Iterable[Chaptered]) -> Iterator[tuple[str, tuple[str, Said]]]:
    """Titles of chapters that say what they are about: of two words or more, and of one episode alone."""
    some = list(chosen)
    often = Counter(title for one in some for title in {_plain(chapter.title) for chapter in one.chapters})
    for one in some:
        ends = [*(chapter.start for chapter in one.chapters[1:]), len(one.episode.text)]
        for number, (chapter, end) in enumerate(zip(one.chapters, ends, strict=True)):
            title = chapter.title
            if not 2 <= len(_WORD.findall(title)) <= MOST_WORDS or _GENERIC.search(title) or often[_plain(title)] > 1:
                continue
            second = one.episode.segments.second_at(chapter.start)
            yield f"{one.id} {number}", (title, Said(one.id, chapter.start, end, second))


def meetings(directory: Path, every: int) -> TalkSet:
    """One judged meeting in so many, its lines as paragraphs."""
    collection = sampled(open_collection(directory), every)
    spec = IndexSpec.model_validate({"talk": {}})
    documents = [parse_document(one.as_json() | {"kind": "talk"}, spec) for one in collection.documents()]
    return TalkSet(collection.name, documents, dict(collection.judged), collection.known_judgements())


def _plain(title: str) -> str:
    return " ".join(re.findall(r"\w+", title.lower()))


def _hash(identifier: str) -> str:
    return hashlib.sha256(identifier.encode()).hexdigest()
