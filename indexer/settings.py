"""Settings of workers alone; what they share with the other processes is in `services.settings`."""

from pydantic import Field

from services.environment import EnvironmentSettings


class WorkerSettings(EnvironmentSettings):
    """Times of a worker, in seconds, read from the environment (prefix `SPARSEWELL_`) when a factory asks.

    They build on each other: a task stops taking new documents at `task_budget`, its process is killed at `task_limit`,
    and a message that nobody acknowledged is delivered again after `redelivery`, which must be far above the limit, or
    a long task would run twice at once.
    """

    task_budget: float = Field(30.0, gt=0)
    task_limit: float = Field(300.0, gt=0)
    redelivery: float = Field(1200.0, gt=0)
    chapter_seconds: float = Field(
        120.0, gt=0, description="time for the chapters of one talk, at most half of `task_limit`"
    )
    patience: float = Field(
        60.0, gt=0, description="how long a task waits for an OpenSearch that is down or overloaded"
    )
    soft_shutdown: float = Field(20.0, ge=0, description="time for running tasks after SIGQUIT; SIGTERM waits for them")
    redis_wait: float = Field(30.0, ge=0, description="how long a starting worker waits for Redis before it gives up")

    @property
    def chapter_time(self) -> float:
        """Seconds for the chapters of one talk: the rest of the task's is for encoding it."""
        return min(self.chapter_seconds, self.task_limit / 2)

    def model_post_init(self, _context: object) -> None:
        if self.task_limit < 2 * self.task_budget:
            raise ValueError("SPARSEWELL_TASK_LIMIT must be at least twice SPARSEWELL_TASK_BUDGET")
        if self.redelivery < 2 * self.task_limit:
            raise ValueError("SPARSEWELL_REDELIVERY must be at least twice SPARSEWELL_TASK_LIMIT")
