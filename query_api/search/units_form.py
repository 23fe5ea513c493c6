"""What may be asked beside `unit`: chapters and passages are ranked by words, and nothing else."""

from query_api.search.request import SearchRequest
from services.errors import InvalidInput
from services.index_spec import IndexSpec

# Members that are of documents. Their order and their counts, what moves the query by whole vectors, what scores them.
REFUSED = (
    "cursor", "sort", "facets", "among", "rerank", "feedback", "like", "unlike", "include_liked", "two_phase",
    "score_by",
)  # fmt: skip


def checked_unit(request: SearchRequest, spec: IndexSpec) -> None:
    """Raises InvalidInput (`not_by_unit`) for what a search for parts of documents cannot do, with the `member`."""
    unit = request.unit
    if unit == "document":
        if request.per_document is not None:
            raise _not_by_unit("per_document", "it is for the units `chapter` and `passage`")
        return
    for name in REFUSED:
        if getattr(request, name) != SearchRequest.model_fields[name].get_default(call_default_factory=True):
            raise _not_by_unit(name, f"it is for whole documents, and not for the unit `{unit}`")
    if not request.query.strip():
        raise _not_by_unit("query", f"the unit `{unit}` is found by words; there are none")
    if unit == "chapter" and spec.talk is None:
        raise _not_by_unit("unit", "the index declares no talk, so nothing in it has chapters")
    if unit == "passage" and "window" not in spec.scored_by:
        raise _not_by_unit(
            "unit",
            f"the index keeps no vectors of passages (its `windows` are {spec.windows}): sparsewell reindex --windows "
            "both adds them",
        )
    if unit == "passage" and spec.talk is None and request.mode != "sparse":
        raise _not_by_unit(
            "mode",
            "only an index that declares talk keeps the words of passages: elsewhere they are found in the mode "
            "`sparse`",
        )


def _not_by_unit(member: str, why: str) -> InvalidInput:
    return InvalidInput("not_by_unit", f"`{member}`: {why}.", member=member)
