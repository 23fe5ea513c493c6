"""Which build this is: its version, and the commit where the images say it."""

from importlib.metadata import version

from services.settings import Settings


def build(settings: Settings) -> dict[str, str | None]:
    """Version and commit; `commit` is None for a build that was not told."""
    return {"version": version("sparsewell"), "commit": settings.commit or None}
