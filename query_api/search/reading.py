"""What is read of documents that a ranking named: the fields that are shown, and why the keyword list named them."""

from collections.abc import Mapping, Sequence
from typing import Any

from query_api.search.asked import Asked, Found
from query_api.search.bodies import explained_body, needed_source, plan
from query_api.search.engine import Documents, Key
from query_api.search.explain import keyword_shares
from query_api.search.lists import answers_of
from query_api.search.request import SearchRequest
from services.opensearch.filter_clauses import Clause


def unread(request: SearchRequest, found: Sequence[Found]) -> Sequence[Found]:
    """What is not read yet of a page: all, or, of a list that came with sources and explanations, those pinned
    documents that lack an explanation: when they were looked up, it was not known which have their places here.
    """
    if request.is_read_later:
        return found
    return [one for one in found if one.pinned and request.asks_why and "lexical" in one.scores]


async def read_shown(alike: Sequence[Asked], found: Sequence[Found]) -> None:
    """Reads the hits that are shown, and where somebody asks why, explains those that the keyword list named.

    `alike`: the searches whose keyword lists are of these hits, each of its own indexes; one, where one is searched.
    """
    asked = alike[0]
    source = needed_source(asked.request)
    if asked.request.asks_why and any("lexical" in one.scores for one in found):
        await _with_explanations(alike, found, source)
    else:
        await with_sources(asked, found, source)


async def with_sources(asked: Asked, found: Sequence[Found], source: Sequence[str]) -> None:
    """Reads fields of what was found. `source` of one that is gone stays None."""
    if found:
        # (several parts of a document are read once)
        keys = list(dict.fromkeys(_keys(asked, found)))
        await _fill(asked, found, source, await asked.engine.documents(keys, source))


async def _with_explanations(alike: Sequence[Asked], found: Sequence[Found], source: Sequence[str]) -> None:
    """Sources and explanations in one request."""
    asked = alike[0]
    keys = _keys(asked, found)
    plans = []
    # (of indexes that are searched alike the rules boost alike)
    asked_of: dict[str, Asked] = {}
    for one in alike:
        names = one.across or (one.generation.physical,)
        asked_of |= dict.fromkeys(names, one)
        wanted = {name: ids for name in names if (ids := [document for index, document in keys if index == name])}
        if wanted:
            search = explained_body(one, _clause(wanted), sum(map(len, wanted.values())), source)
            plans.append(plan(one, "lexical", search))
    answers = await answers_of(asked, plans)
    hits = {(hit["_index"], hit["_id"]): hit for answer in answers for hit in answer["hits"]["hits"]}
    for key, each in zip(keys, found, strict=True):
        if key in hits and "lexical" in each.scores:
            rules, score = asked_of[key[0]].curated, each.scores["lexical"]
            each.shares = shares_of(hits[key], score if rules is None else rules.unboosted(score, each.boosts))
    await _fill(asked, found, source, {key: hit["_source"] for key, hit in hits.items()})


def _clause(wanted: Mapping[str, Sequence[str]]) -> Clause:
    """The documents of these ids, by index. An id may be in several indexes, and only in one of them be shown."""
    if len(wanted) == 1:
        (ids,) = wanted.values()
        return {"ids": {"values": ids}}
    each = [
        {"bool": {"filter": [{"term": {"_index": name}}, {"ids": {"values": ids}}]}} for name, ids in wanted.items()
    ]
    return {"bool": {"should": each}}


def shares_of(hit: Mapping[str, Any], score: float) -> dict[tuple[str, str], float]:
    """Contributions to the `score` that the list gave, without boosts. What was written meanwhile changes how much a
    word counts and which boosts a document has, and another copy of the shard counts otherwise: a little, but they
    would no longer add up to the score that is shown.
    """
    shares = keyword_shares(hit["_explanation"])
    now = sum(shares.values())
    return {term: share * (score / now) for term, share in shares.items()} if now else {}


async def _fill(asked: Asked, found: Sequence[Found], source: Sequence[str], read: Documents) -> None:
    """Gives each its content. Of two copies of a shard, the one that was asked here may not show yet what the other one
    found: what it misses is read in real time, or a hit would be gone without a word.
    """
    keys = _keys(asked, found)
    if missing := [key for key in dict.fromkeys(keys) if key not in read]:
        read = read | await asked.engine.documents(missing, source, realtime=True)
    for key, one in zip(keys, found, strict=True):
        content = read.get(key)
        # but for a document that was deleted between the two requests
        one.source = content if content is not None and content.get("state") != "deleted" else None
    asked.watch.lap("opensearch")


def _keys(asked: Asked, found: Sequence[Found]) -> list[Key]:
    return [(one.index or asked.generation.physical, one.id) for one in found]
