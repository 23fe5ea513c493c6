"""From the words of a request to the vector that the sparse list is asked with. No model: a table and arithmetic."""

from query_api.search.request import SearchRequest
from services.query_table import QueryTable, QueryVector
from services.settings import Settings


def query_vector(request: SearchRequest, table: QueryTable, settings: Settings) -> QueryVector:
    """The weighted pieces of a request's words. Raises InvalidInput (`query_too_long`)."""
    return table.encode(request.query, settings.max_query_pieces)
