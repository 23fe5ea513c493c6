"""Where the time of a search went."""

import time

from services.telemetry import tracing
from services.telemetry.metrics import SEARCH_STAGE, SEARCHES

# Stages of a search, as its answer and the metrics name them.
STAGES = ("encode", "opensearch", "engine", "fuse", "rerank", "shape", "total")
_OBSERVED = {stage: SEARCH_STAGE.labels(stage) for stage in STAGES}


class Stopwatch:
    """Milliseconds by stage. `engine` is what OpenSearch itself reports, a part of `opensearch`."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.stages = dict.fromkeys(STAGES, 0.0)

    def lap(self, stage: str) -> None:
        """The time since the last lap belongs to `stage`."""
        now = time.perf_counter()
        self.stages[stage] += (now - self._last) * 1000
        if stage != "opensearch" and tracing.on():  # (its requests have spans of their own)
            tracing.past(f"search {stage}", self._last, now)
        self._last = now

    @property
    def passed(self) -> float:
        """Seconds until now."""
        return time.perf_counter() - self._start

    def finish(self, mode: str) -> dict[str, float]:
        """The times of an answered search of this mode, which are counted as well: about 15 microseconds."""
        self.stages["total"] = (self._last - self._start) * 1000
        SEARCHES.labels(mode).inc()
        trace = tracing.trace_id()
        exemplar = None if trace is None else {"trace_id": trace}
        for stage, value in self.stages.items():
            if value:
                _OBSERVED[stage].observe(value / 1000, exemplar)
        return {stage: round(value, 3) for stage, value in self.stages.items()}
