"""Earlier turns of a conversation as context of a query, without a model that would rewrite it.

A follow-up leaves out what was said before ("and on windows?"). So pieces of earlier turns that it does not have itself
are added to it, the lighter the longer ago they were said and the more common they are:

    weight = table weight * share * decay^age * (table weight / heaviest of the table)^rarity

Pieces that the follow-up has keep their weight: to say a word twice made the ranking worse (docs/decisions/0156). A
learned query encoder for conversations (DiSCo, arXiv 2410.14609) does more, and needs a model at query time. Pure.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.query_blend import Share, Weights, heaviest
from services.query_table import QueryTable

CONTEXT = "context"
# A script without spaces has no words for this; it is cut, so that no clause grows beyond what Lucene takes.
_WORD = re.compile(r"\w{1,32}")
# Words of earlier turns that keyword search gets; each is a clause or, in a script without spaces, up to 32.
MOST_WORDS: Final = 20
# Of what the query's own weigh (its heaviest piece; a word's 1). What weighs less costs clauses and changes no ranking:
# a third fewer pieces, and the same NDCG@10 to a thousandth.
_LEAST = 0.05


@dataclass(frozen=True, slots=True)
class Memory:
    """How much of earlier turns counts: `share` and `decay` from 0 to 1, `rarity` not below 0."""

    share: float = 0.5
    decay: float = 0.5
    rarity: float = 1.0

    def factor(self, age: int, relative: float) -> float:
        """What is left of a weight that was said `age` turns before the last; `relative` to the table's heaviest."""
        return self.share * self.decay**age * float(relative**self.rarity)


def carried_pieces(now: Weights, turns: Sequence[Weights], top: float, memory: Memory, most: int) -> Share:
    """What earlier turns give to a query: the heaviest `most` pieces that it does not have.

    `turns` are oldest first, each as the table weighs it; `top` is the largest weight of the table. Of a piece that was
    said several times the heaviest counts. What would weigh less than a twentieth of the query's heaviest is left out.
    """
    found: dict[int, float] = {}
    least = _LEAST * max(now.values(), default=0.0)
    for age, turn in enumerate(reversed(turns)):
        for piece, weight in turn.items():
            carried = weight * memory.factor(age, weight / top)
            if piece not in now and carried > max(least, found.get(piece, 0.0)):
                found[piece] = carried
    return Share(CONTEXT, heaviest(found, most))


def carried_words(now: str, turns: Sequence[str], relative: Mapping[str, float], memory: Memory) -> dict[str, float]:
    """What earlier turns give to keyword search: words that the query does not have, with their boosts, heaviest first.

    `relative` is what `word_weights` says of the turns. BM25 weighs rare words itself; that common ones are carried
    less far is the same rule as for pieces.
    """
    own = set(words(now))
    found: dict[str, float] = {}
    for age, turn in enumerate(reversed(turns)):
        for word in words(turn):
            carried = memory.factor(age, relative.get(word, 0.0))
            if word not in own and carried > max(_LEAST, found.get(word, 0.0)):
                found[word] = carried
    best = sorted(found, key=lambda word: (-found[word], word))[:MOST_WORDS]
    return {word: found[word] for word in best}


def word_weights(table: QueryTable, turns: Sequence[str]) -> dict[str, float]:
    """How heavy the heaviest piece of each word of the turns is, the table's heaviest being 1."""
    said = dict.fromkeys(word for turn in turns for word in words(turn))
    return {word: max(table.encode(word).weights, default=0.0) / (table.heaviest or 1.0) for word in said}


def words(text: str) -> list[str]:
    """The distinct words of a text in lower case, in order."""
    return list(dict.fromkeys(_WORD.findall(text.casefold())))
