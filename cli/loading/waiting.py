"""Follows the jobs of a load until every document is encoded, dead or superseded."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from cli.loading.display import Display

POLL_SECONDS = 0.5
# After this long without progress the user is told what may be missing.
SUSPICIOUS_SECONDS = 30.0

Job = dict[str, Any]


def wait_for_jobs(
    jobs: Sequence[str], expected: int, complete: Callable[[Job], bool], ask: Callable[[str], Job | None], show: Display
) -> tuple[Counter[str], list[Job]]:
    """Polls one job after the other, in the order in which they were made, which is the order of the queue.

    `complete` says whether a job knows of all its documents; returns counts by state, and the finished jobs.
    """
    totals: Counter[str] = Counter()
    finished = []
    show.begin("encoding", expected, unit="documents")
    last, since = -1, time.monotonic()
    for job_id in jobs:
        while True:
            job = ask(job_id)
            states = Counter(job["states"] if job else {})
            encoded = totals["encoded"] + states["encoded"]
            show.step(encoded + totals["dead"] + totals["superseded"], expected, encoded)
            if job and job["finished"] and complete(job):
                totals += states
                finished.append(job)
                break
            if encoded != last:
                last, since = encoded, time.monotonic()
            elif time.monotonic() - since > SUSPICIOUS_SECONDS:
                since = time.monotonic()
                show.say(f"No progress for {SUSPICIOUS_SECONDS:.0f} s: is a worker running (sparsewell worker)?")
            time.sleep(POLL_SECONDS)
    return totals, finished
