"""Candidates for mining hard negatives, searched in an index through the REST API."""

from collections.abc import Sequence

import httpx
import orjson

from cli.relevance.live import LiveIndex
from models.training.index_candidates import IndexCandidates
from models.training.pairs import PairSet


def index_candidates(client: httpx.Client, index: str, mode: str, pairs: PairSet) -> IndexCandidates:
    """Return ranked lists of the passages of `pairs`, which the index holds as `passage_documents` writes them.

    The fingerprint changes with the index's generation, encoder and number of documents by state. A query that the API
    refuses as invalid (too long, empty) has no candidates. Raises NotFound, BackendUnavailable, and InvalidInput for an
    unknown mode or more hits than the API returns.
    """
    live = LiveIndex(client, index)
    state = orjson.dumps([live.inspect(), mode], option=orjson.OPT_SORT_KEYS).decode()

    def search(texts: Sequence[str], depth: int) -> list[list[str]]:
        asked = live.ask({str(number): text for number, text in enumerate(texts)}, mode, depth)
        return [[one for one, _ in asked.rankings.get(str(number), [])] for number in range(len(texts))]

    return IndexCandidates(pairs, search, name=f"index-{mode}", fingerprint=state)
