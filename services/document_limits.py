"""How large a document may be."""

from dataclasses import dataclass

from services.errors import TooLarge
from services.index_spec import IndexSpec


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of JSON that a document may have, and one that is talk, whose segments take more than its words."""

    document: int = 1024**2
    talk: int = 8 * 1024**2

    def longest(self, spec: IndexSpec) -> int:
        """Of anything that an index takes."""
        return self.document if spec.talk is None else max(self.document, self.talk)

    def check(self, size: int, spec: IndexSpec, *, talk: bool) -> None:
        """Raises TooLarge (`document_too_large`)."""
        talk = talk and spec.talk is not None
        if size > (limit := self.talk if talk else self.document):
            kind = "document that is talk" if talk else "document"
            raise TooLarge("document_too_large", f"A {kind} may have {limit:,} bytes of JSON; this has more.")


DEFAULT_LIMITS = Limits()
