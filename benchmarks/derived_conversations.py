"""Conversations derived by rule from judged queries. Nobody ever held them: figures on them are of the derivation.

There is no judged conversational collection at hand, so follow-ups are made: from a judged query every content word
that an earlier turn has said is left out, as speakers leave out what is understood (ellipsis). What is to be found
stays what was judged relevant to the whole query, and the whole query is the rewriting that a perfect model would give.

- `from_overlap`: the earlier turn is another query of the collection that shares words with this one.
- `from_series`: the turns are the queries of one series (questions about one meeting), in their order.
- `unrelated`: the earlier turn is a query that shares no content word, and the follow-up is a whole query: nothing is
  to be carried over, so whatever the context changes is harm.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# Lucene's English stop words, question words, pronouns, auxiliaries, and the like.
_FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a an and are as at be but by for if in into is it no not of on or such that the their then there these they "
        "this to was will with what which who whom whose why when where how does did do done has have had can could "
        "would should may might must been being were he she him her his them its i you we us our my your me from about "
        "than also any some each between during using used use other others more most so up out over very "
    )
)
_OFTEN, _FEW = 0.1, 5


@dataclass(frozen=True, slots=True)
class Conversation:
    """`query` names the judged query; `turns` were said before, oldest first; `whole` is the query as it was judged."""

    query: str
    turns: tuple[str, ...]
    follow_up: str
    whole: str


class Words:
    """What the words of a collection's queries say: which of them are about something."""

    def __init__(self, queries: Iterable[str]) -> None:
        """Words in more than a tenth of the queries ("summarize", "discussion", "python") tell none from another."""
        each = [_words(text) for text in queries]
        counts = Counter(word for words in each for word in words)
        often = {word for word, count in counts.items() if count > max(_FEW, len(each) * _OFTEN)}
        self._empty = often | _FUNCTION_WORDS

    def content(self, text: str) -> set[str]:
        """The words of a text that say what it is about, in lower case."""
        return _words(text) - self._empty

    def ellipsis(self, whole: str, said: Iterable[str]) -> str | None:
        """The query without the content words of `said`; None when that changes nothing or leaves no content word."""
        known = set().union(*(self.content(turn) for turn in said))
        left = " ".join(_WORD.sub(lambda m: "" if m[0].casefold() in known else m[0], whole).split())
        content = self.content(left)
        return left if content and content != self.content(whole) else None


def _words(text: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(text)}


def from_overlap(queries: Mapping[str, str]) -> list[Conversation]:
    """Each query that shares content words with another one, after that other one; the one that shares most of its own.

    "Most" is the share of the query's content words, of equal ones the shorter turn, then the first by id.
    """
    of_all = Words(queries.values())
    words = {query: of_all.content(text) for query, text in queries.items()}
    found = []
    for query, whole in queries.items():
        shared = [
            (-len(words[query] & words[other]), len(words[other]), other)
            for other in queries
            if words[query] & words[other] and words[other] != words[query]
        ]
        for _, _, other in sorted(shared):
            follow_up = of_all.ellipsis(whole, [queries[other]])
            if follow_up is not None:
                found.append(Conversation(query, (queries[other],), follow_up, whole))
                break
    return found


def from_series(queries: Mapping[str, str], series: Callable[[str], str], most: int) -> list[Conversation]:
    """Queries of one series, each after at most `most` earlier ones as they were said, ellipsis included.

    Only those in which something was left out; the others are turns of later ones all the same.
    """
    of_all = Words(queries.values())
    said: dict[str, list[str]] = {}
    found = []
    for query, whole in queries.items():
        before = said.setdefault(series(query), [])
        turns = tuple(before[-most:])
        follow_up = of_all.ellipsis(whole, turns) if turns else None
        if follow_up is not None:
            found.append(Conversation(query, turns, follow_up, whole))
        before.append(follow_up or whole)
    return found


def unrelated(queries: Mapping[str, str], turns: int, seed: int = 0) -> list[Conversation]:
    """Each whole query after `turns` others, drawn at random, that share no content word with it."""
    draw = random.Random(seed)
    of_all = Words(queries.values())
    words = {query: of_all.content(text) for query, text in queries.items()}
    found = []
    for query, whole in queries.items():
        others = [other for other in queries if not words[query] & words[other]]
        if len(others) >= turns:
            drawn: Sequence[str] = draw.sample(others, turns)
            found.append(Conversation(query, tuple(queries[other] for other in drawn), whole, whole))
    return found
