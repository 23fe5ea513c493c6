"""Earlier turns of a conversation, as pieces of the sparse list's query and as words of the lexical one's."""

from query_api.search.asked import Asked
from query_api.search.feedback_request import Context
from services.conversation import Memory, carried_pieces, carried_words, word_weights


def remember(asked: Asked, context: Context) -> None:
    """Adds what earlier turns give. A query that has no words (it has `like`) takes all of theirs."""
    settings, table = asked.parts.settings, asked.table
    memory = Memory(context.share, context.decay, context.rarity)
    turns = [table.encode(turn).by_id() for turn in context.turns]
    own = asked.query.by_id() | dict(asked.query.pruned)
    share = carried_pieces(own, turns, table.heaviest, memory, settings.max_added_pieces)
    asked.blend = asked.blend.plus([share], settings.max_query_pieces)
    asked.carried = carried_words(asked.request.query, context.turns, word_weights(table, context.turns), memory)
