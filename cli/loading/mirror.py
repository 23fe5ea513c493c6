"""The documents that an index has when a directory is loaded again.

A load skips the documents that did not change, because encoding is most of its work. `--mirror` also deletes the
documents without a file. The index itself is compared, not a record of an earlier load: so a document that was changed
or deleted by another client is loaded again (docs/decisions/0253).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from cli.loading.directories import FileSource
from cli.loading.source import LoadSource
from services.documents.document import MAX_CLIENT_VERSION, parse_document
from services.errors import ConfigurationError, Forbidden, InvalidInput
from services.index_spec import IndexSpec

if TYPE_CHECKING:
    from cli.loading.destinations import ApiDestination
    from cli.terminal import LoadDisplay

# Members that the API adds to a document of an export. The error also marks a dead letter, which is sent again.
_ADDED_MEMBERS = ("version", "state", "error")
_DIGEST_BYTES = 16


@dataclass
class IndexedDocuments:
    """The documents of an index: the version of each, and the digest of each that is not dead."""

    spec: IndexSpec
    versions: dict[str, int] = field(default_factory=dict)
    digests: dict[str, bytes] = field(default_factory=dict)

    def add(self, line: bytes) -> None:
        """Add a line of an export."""
        exported = orjson.loads(line)
        self.versions[exported["id"]] = exported["version"]
        content = {name: value for name, value in exported.items() if name not in _ADDED_MEMBERS}
        digest = None if exported["state"] == "dead" else self._digest(content)
        if digest is not None:
            self.digests[exported["id"]] = digest

    def has(self, document: bytes) -> bool:
        """Tell whether the index has a document with the same content. A document with its own version counts as new.

        The service decides about versions, and about documents that are not valid.
        """
        value: Any = orjson.loads(document)
        known = self.digests.get(value.get("id"))
        return known is not None and value.get("version") is None and self._digest(value) == known

    def _digest(self, value: Any) -> bytes | None:
        """Return a hash of a document as the service reads it, or None if the service refuses it.

        So an empty title equals an absent title, and a transcript equals the segments that it gives.
        """
        try:
            document = parse_document(value, self.spec)
        except InvalidInput:
            return None
        # The repairs describe the way that a talk was sent, and not its content.
        talk = None if document.talk is None else replace(document.talk, repairs=())
        read = orjson.dumps(
            replace(document, talk=talk), list, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
        )
        return hashlib.sha256(read).digest()[:_DIGEST_BYTES]

    def without_file(self, names: set[str], unread: Sequence[str]) -> list[str]:
        """Return the ids of documents without a file, in order. Files below a directory that cannot be read exist."""
        below = tuple(f"{name}/" for name in unread)
        return sorted(document_id for document_id in self.versions.keys() - names if not document_id.startswith(below))


def read_indexed_documents(
    rest: "ApiDestination", sources: Sequence[LoadSource], show: "LoadDisplay", *, mirror: bool
) -> IndexedDocuments | None:
    """Read the documents of the index for the load of a directory. Return None for other sources.

    A key that may not read the index loads every file. Raises Forbidden with `mirror`.
    """
    if not any(isinstance(source, FileSource) and source.is_directory for source in sources):
        return None
    try:
        indexed = IndexedDocuments(rest.spec())
        show.begin("comparing", 1, unit="documents")
        for lines, trailer in rest.export():
            for line in lines:
                indexed.add(line)
            show.step(len(indexed.versions), trailer["total"], len(indexed.versions))
    except Forbidden:
        if mirror:
            raise
        show.report("The key may not read the index, so files that did not change are sent too.")
        return None
    return indexed


def find_mirrored_directory(sources: Sequence[LoadSource], *, maps_ids: bool) -> FileSource:
    """Return the directory of a load with --mirror. Raises ConfigurationError (`bad_mirror`).

    An empty directory is refused: it is more often a disk that is not mounted than a wish to delete all documents.
    """
    directories = [source for source in sources if isinstance(source, FileSource) and source.is_directory]
    if len(sources) != 1 or not directories or maps_ids:
        raise ConfigurationError(
            "bad_mirror", "--mirror needs one directory and nothing else, with the paths of its files as ids."
        )
    (directory,) = directories
    names, _ = directory.list_ids()
    if not names:
        raise ConfigurationError(
            "bad_mirror",
            f"{directory.name} has no documents, so --mirror would delete every document of the index. Use "
            "`sparsewell indexes delete` if you want that.",
        )
    return directory


def remove_documents_without_file(
    rest: "ApiDestination", directory: FileSource, indexed: IndexedDocuments, report: Callable[[str], None]
) -> int:
    """Delete the documents of the index without a file below the directory. Return their number.

    Each delete has the version after the one that was read, so a document that was written since is kept.
    """
    removed = 0
    for document_id in indexed.without_file(*directory.list_ids()):
        if rest.delete(document_id, min(MAX_CLIENT_VERSION, indexed.versions[document_id] + 1)):
            removed += 1
        else:
            report(f"{document_id} was written while the directory was loaded: it is kept.")
    return removed
