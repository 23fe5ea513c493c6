"""Finishes swaps whose command died between the decision and the end. Called by the sweeper."""

import logging
from contextlib import suppress

from indexer.reindex.dispatch import through_queue
from indexer.reindex.follower import Follower
from indexer.reindex.swap import finish
from services.errors import Conflict, NotFound, SparsewellError
from services.opensearch.client import SyncSearch
from services.opensearch.generations import generation_call, read_generations, unblock_call
from services.opensearch.journal import now_ms
from services.opensearch.reindex_record import ReindexRecord, ReindexRecords
from services.queue import Publisher
from services.settings import Settings

log = logging.getLogger(__name__)

# A command that works on a swap saves its record far more often than this. Writes wait meanwhile, for 30 s at most
# (SPARSEWELL_OPENSEARCH_TIMEOUT).
ABANDONED_SECONDS = 10.0


def rescue(search: SyncSearch, publisher: Publisher, settings: Settings) -> int:
    """Takes over and finishes every swap that nobody has touched for a while; how many it finished."""
    records = ReindexRecords(search, settings)
    done = 0
    for record in records.unfinished(now_ms() - int(ABANDONED_SECONDS * 1000)):
        try:
            records.save(record)
            finish(Follower(search, records, settings, record, through_queue(publisher, settings, record.target)))
        except Conflict as error:
            log.info("%s", error)  # the command lives, or another sweeper was faster
        except NotFound as error:
            log.warning("the swap of %r is given up: %s", record.index, error)
            _let_go(search, record)
            records.forget(record)
        except SparsewellError as error:
            log.warning("the swap of %r is not finished: %s", record.index, error)
        else:
            log.warning("finished the swap of %r, whose command had ended half-way", record.index)
            done += 1
    return done


def _let_go(search: SyncSearch, record: ReindexRecord) -> None:
    """The old generation is written again, if it is still there: nothing will replace it."""
    with suppress(NotFound):
        (found,) = read_generations(search.send(generation_call(record.source.physical)))
        if found.token == record.source.token:
            search.send(unblock_call(record.source))
