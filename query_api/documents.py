"""One stored document, read by its id."""

from collections.abc import Sequence

from query_api.parts import AppState
from services.documents import checked_id
from services.errors import NotFound
from services.opensearch.journal import DELETED, Stored, get_call


async def stored_document(app: AppState, index: str, document_id: str, only: Sequence[str] = ()) -> Stored:
    """As it is at this moment, without what an encoder made; `only`: members of its source, none: all.

    Raises NotFound (`index_not_found`, `document_not_found`).
    """
    generation = await app.generation(index)
    try:
        found = await app.search.send(get_call(generation.alias, checked_id(document_id), only))
    except NotFound as error:
        if error.code == "index_not_found":
            app.forget(index)
        found = {}
    if not found.get("found") or found["_source"]["state"] == DELETED:
        raise NotFound("document_not_found", f"The index {index!r} has no document {document_id[:80]!r}.")
    return Stored(found["_id"], found["_version"], found["_source"])
