"""What makes a document talk: when and by whom its text is said, and the chapters of its producer."""

from dataclasses import dataclass

from services.talk.chapters import Chapter, Repair
from services.talk.segments import Segments


@dataclass(frozen=True, slots=True)
class Talk:
    """A checked transcript beside its text (which is the document's). `given`: chapters of the producer, None: none.

    `duration` in seconds; `url` is that of the recording, for links.
    """

    segments: Segments
    description: str = ""
    given: tuple[Chapter, ...] | None = None
    duration: float | None = None
    url: str = ""
    repairs: tuple[Repair, ...] = ()
