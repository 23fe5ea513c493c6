"""From the words of a request to the vector that the sparse list is asked with. No model: a table and arithmetic."""

from query_api.search.curated import Curated
from query_api.search.request import SearchRequest
from services.pruning import pruned
from services.query_table import QueryTable, QueryVector
from services.settings import Settings


def query_vector(
    request: SearchRequest, table: QueryTable, settings: Settings, curated: Curated | None = None
) -> QueryVector:
    """The weighted pieces of a request's words, without the light ones. Raises InvalidInput (`query_too_long`)."""
    share = settings.prune if request.prune is None else request.prune
    vector = table.encode(request.query, settings.max_query_pieces)
    if curated is not None:
        vector = curated.vector(vector, table, settings.max_query_pieces)
    return pruned(vector, share)
