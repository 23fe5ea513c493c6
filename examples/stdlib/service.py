"""The questions, asked of the running service."""

from collections.abc import Callable, Sequence

from examples.service import Service
from examples.stdlib.questions import Question
from examples.stdlib.tally import MODES, Asked, Ranking

SIZE = 10  # hits asked for with every question
WARM_UP = 10  # questions asked once before any is timed: a fresh Java process interprets its code at first


def searcher(service: Service) -> Callable[[str, str], Ranking]:
    """What asks one question in one mode."""

    def search(query: str, mode: str) -> Ranking:
        answer, elapsed = service.search(query, mode, size=SIZE)
        return Ranking(tuple(hit["id"] for hit in answer["hits"]), elapsed, answer["timings_ms"]["total"])

    return search


def ask(search: Callable[[str, str], Ranking], questions: Sequence[Question]) -> list[Asked]:
    """Asks every question in every mode. The modes take turns, so that none of them has the warmer machine."""
    for question in questions[:WARM_UP]:
        for mode in MODES:
            search(question.text, mode)
    return [Asked(question, {mode: search(question.text, mode) for mode in MODES}) for question in questions]
