"""What is mended in what was sent, each kind under a stable code, counted and said once."""

from collections import Counter

from services.talk.chapters import Repair

# docs/talk.md lists the same; what an engine of chapters has mended of its own is said beside it, with the chapters.
SENTENCES = {
    "unread_cues": "Cues without readable times (in SubRip also those without words) were left out.",
    "long_names": "Names of voices were cut to 200 characters.",
    "repeated_captions": "Lines that rolling captions show a second time were left out.",
    "empty_segments": "Segments without words were left out.",
    "unordered_segments": "Segments that begin before the one before them were sorted by their starts.",
    "end_before_start": "Ends before their starts were replaced by the start of the next segment.",
    "ends_without_start": "Ends of segments that do not say when they begin were left out.",
    "missing_ends": "Segments that do not say when they end were ended where the next one begins.",
    "overlapping_segments": "Segments that end after the next one begins were ended there.",
    "beyond_duration": "Segments are said after the given duration, which was replaced by the last time there is.",
    "long_segments": "Segments of more than 1,500 characters were cut between sentences or words; times of the parts "
    "are their share of the segment's.",
    "hidden_chapters": "Chapters with `toc`: false were left out.",
    "chapter_members_left_out": "Members of chapters other than title, start and end were left out.",
    "long_titles": "Titles of chapters were cut to 1,000 characters.",
    "untitled_chapters": "Chapters without a title were given their number as one.",
    "unordered_chapters": "Chapters that begin before the one before them were sorted by their starts.",
    "chapter_times": "Chapters that begin at another time than their segment were given that of the segment.",
    "chapter_ends": "Ends of chapters before their starts, or after the next one's, were replaced by the next start.",
    "chapters_beyond_end": "Chapters that begin after the end of the talk were left out.",
    "chapters_without_text": "Chapters that begin at the same segment as another were left out.",
    "chapters_by_share": "The transcript has no times: chapters were placed by their share of the duration.",
}


class Repairs:
    """Counts them while a talk is read."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, code: str, number: int = 1) -> None:
        """Notes `number` more of a kind; none of them is no repair."""
        self._counts[code] += number

    def made(self) -> tuple[Repair, ...]:
        """What was mended, in the order of the table."""
        return tuple(Repair(code, SENTENCES[code], self._counts[code]) for code in SENTENCES if self._counts[code])
