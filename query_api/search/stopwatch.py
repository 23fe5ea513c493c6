"""Where the time of a search went."""

import time


class Stopwatch:
    """Milliseconds by stage. `engine` is what OpenSearch itself reports, a part of `opensearch`."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.stages = dict.fromkeys(("encode", "opensearch", "engine", "fuse", "rerank", "shape", "total"), 0.0)

    def lap(self, stage: str) -> None:
        """The time since the last lap belongs to `stage`."""
        now = time.perf_counter()
        self.stages[stage] += (now - self._last) * 1000
        self._last = now

    @property
    def passed(self) -> float:
        """Seconds until now."""
        return time.perf_counter() - self._start

    def finish(self) -> dict[str, float]:
        self.stages["total"] = (self._last - self._start) * 1000
        return {stage: round(value, 3) for stage, value in self.stages.items()}
