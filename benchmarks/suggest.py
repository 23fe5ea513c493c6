"""What do suggestions cost beside a keyword search, and how many misspelt words are corrected rightly?

    python -m benchmarks.suggest ../shared/data/collections --json benchmarks/results/suggest.json

Latency: 60,000 titles of three to seven words, drawn as often as they occur in the collections; their first two to ten
letters, each completed and searched for in turn, straight at the node. Spelling: words of judged queries that the
collection has, each with one letter left out, put in, taken for another or swapped; those whose keyword list is empty
then are looked up as a search does it, and, for comparison, in the stems of keyword search.
"""

import argparse
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.filled_index import create, journal
from benchmarks.record import command_line, run
from benchmarks.service import node_settings, opensearch_version
from benchmarks.timing import ratios, spread, take_turns
from cli.relevance.collection import Collection, open_collection
from services.documents import Document
from services.index_spec import Generation
from services.opensearch.analysis import read_terms, terms_call
from services.opensearch.client import AsyncSearch, SyncSearch
from services.opensearch.generations import refresh_call
from services.opensearch.queries import Plan, body, lexical_query, search_call
from services.opensearch.spelling import documents_body, near_body, read_documents, read_near
from services.opensearch.suggestions import spelling_field, titles_plan
from services.settings import Settings
from services.spelling import SHORTEST, corrections

_WORD = re.compile(r"[a-z]+")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TIMEOUT = 30.0


def misspelt(word: str, order: random.Random) -> str:
    """The word with one mistake."""
    at = order.randrange(len(word))
    match order.randrange(4):
        case 0:
            return word[:at] + word[at + 1 :]
        case 1:
            return word[:at] + order.choice(_LETTERS) + word[at:]
        case 2:
            return word[:at] + order.choice(_LETTERS.replace(word[at], "")) + word[at + 1 :]
    at = min(at, len(word) - 2)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def words_of(texts: Iterator[str] | Sequence[str]) -> Counter[str]:
    """Words of ASCII letters and how often they occur."""
    return Counter(word for text in texts for word in _WORD.findall(text.lower()))


class Speller:
    """Corrects one word as a search does, by the words or by the stems of an index."""

    def __init__(self, search: SyncSearch, generation: Generation) -> None:
        self._search = search
        self._index = generation.physical
        self._words = spelling_field(generation.spec)

    def is_found(self, word: str) -> bool:
        """Whether keyword search finds a document by it."""
        found = self._search.send(
            search_call(Plan(self._index, body(lexical_query(word), 1, False, _TIMEOUT)), _TIMEOUT)
        )
        return bool(found["hits"]["hits"])

    def corrected(self, word: str, field: str | None = None) -> str | None:
        """The word that is suggested; None: none is."""
        field = field or self._words
        unknown = read_near(self._ask(near_body(field, word, _TIMEOUT)), word)
        terms = list(dict.fromkeys(term for one in unknown for term in (one.term, *one.near)))
        if not terms:
            return None
        documents = read_documents(self._ask(documents_body(field, terms, (), (), _TIMEOUT)), terms)
        return next((one.suggested for one in corrections(word, unknown, documents)), None)

    def stem(self, word: str) -> str:
        """What keyword search makes of a word."""
        terms = read_terms(self._search.send(terms_call(self._index, "lexical", [word], _TIMEOUT)), [word])
        return terms[word][0].text if word in terms else ""

    def _ask(self, asked: dict[str, Any]) -> Any:
        return self._search.send(search_call(Plan(self._index, asked), _TIMEOUT))


def spelling(collection: Collection, search: SyncSearch, settings: Settings) -> dict[str, Any]:
    """Shares of misspelt words whose keyword list is empty: corrected rightly, wrongly, not at all."""
    documents = [Document(one.id, one.text, one.title) for one in collection.documents()]
    generation = create(search, settings, collection.name)
    journal(search, settings, generation, documents)
    search.send(refresh_call(generation.physical))
    known = words_of([f"{one.title} {one.text}" for one in documents])
    asked = sorted(
        word for word in words_of(list(collection.judged.values())) if len(word) > SHORTEST and known[word] > 0
    )
    order, speller = random.Random(1), Speller(search, generation)
    counts: Counter[str] = Counter()
    for word in asked:
        wrong = misspelt(word, order)
        if wrong in known or speller.is_found(wrong):
            counts["found all the same"] += 1
            continue
        counts["looked up"] += 1
        suggested = speller.corrected(wrong)
        counts["right" if suggested == word else "none" if suggested is None else "another"] += 1
        counts["right or of its stem"] += suggested is not None and speller.stem(suggested) == speller.stem(word)
        counts["right by stems"] += speller.corrected(wrong, "lexical") == speller.stem(word)
    shares = {name: round(counts[name] / counts["looked up"], 3) for name in
              ("right", "right or of its stem", "another", "none", "right by stems")}  # fmt: skip
    print(f"{collection.name}: {counts['looked up']} misspelt words, {shares}", flush=True)
    return {"words": len(asked), "found all the same": counts["found all the same"], "shares": shares}


def drawn_titles(words: Counter[str], count: int) -> list[str]:
    """Titles of words as frequent as they are."""
    order = random.Random(1)
    drawn = iter(order.choices(list(words), list(words.values()), k=7 * count))
    return [" ".join(next(drawn) for _ in range(order.randint(3, 7))) for _ in range(count)]


async def latency(settings: Settings, generation: Generation, typed: Sequence[str], rounds: int) -> dict[str, Any]:
    """Milliseconds of a suggestion and of a keyword search for the same letters."""
    search = AsyncSearch(settings)

    def suggesting(*, fuzzy: bool) -> Any:
        async def ask(letters: str) -> None:
            await search.send(
                search_call(titles_plan(generation.physical, letters, 8, (), (), _TIMEOUT, fuzzy=fuzzy), _TIMEOUT)
            )

        return ask

    async def match(letters: str) -> None:
        plan = Plan(generation.physical, body(lexical_query(letters), 8, ["title"], _TIMEOUT))
        await search.send(search_call(plan, _TIMEOUT))

    sides = {"match": match, "exact": suggesting(fuzzy=False), "fuzzy": suggesting(fuzzy=True)}
    took = await take_turns(sides, typed, rounds)
    await search.close()
    spreads = {name: spread(values) for name, values in took.items()}
    return {name: {"ms": one, "over match": ratios(one, spreads["match"])} for name, one in spreads.items()}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Both parts."""
    collections = [open_collection(given.data / name) for name in given.collections.split(",")]
    figures: dict[str, Any] = {}
    with node_settings() as settings, closing(SyncSearch(settings)) as search:
        figures["spelling"] = {one.name: spelling(one, search, settings) for one in collections}
        if given.titles:
            words = words_of([one.text for collection in collections for one in collection.documents()])
            titles = drawn_titles(words, given.titles)
            generation = create(search, settings, "titles")
            for start in range(0, len(titles), 5000):
                some = titles[start : start + 5000]
                journal(search, settings, generation, [Document(f"d{start + n}", t, t) for n, t in enumerate(some)])
            search.send(refresh_call(generation.physical))
            order = random.Random(2)
            typed = [title[: order.randint(2, 10)].lstrip() for title in order.sample(titles, given.prefixes)]
            figures["latency"] = uvloop.run(latency(settings, generation, typed, given.rounds))
            for name, side in figures["latency"].items():
                print(f"{name:>6}: {side['ms']}", flush=True)
        figures["opensearch"] = opensearch_version(settings)
    return figures


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("suggest", __doc__ or "")
    parser.add_argument("data", type=Path, help="directory of collections")
    parser.add_argument("--collections", default="cranfield,medline")
    parser.add_argument("--titles", type=int, default=60_000, help="0: spelling alone")
    parser.add_argument("--prefixes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    run("suggest", parser, measure, arguments)


if __name__ == "__main__":
    main()
