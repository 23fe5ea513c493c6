"""Reindex in the common way: copy once, then swap the alias. `following.py PHYSICAL...`

The control of test_reindex.py calls it with the names of both generations.
"""

from services.index_spec import Generation
from services.opensearch.bulk import write_bulk
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import swap_alias_call
from services.opensearch.journal import read_stored_hits
from services.opensearch.reindex import copy_write
from services.settings import Settings


def copy_and_swap(search: SyncSearchClient, settings: Settings, old: Generation, new: Generation) -> None:
    """Copy without following changes. Writes between the copy and the swap are lost."""
    search.send(Call("POST", f"/{old.physical}/_refresh"))
    body = b'{"size": 10000, "version": true, "query": {"match_all": {}}}'
    documents = read_stored_hits(search.send(Call("POST", f"/{old.physical}/_search", body)))
    for at in range(0, len(documents), 20):
        part = documents[at : at + 20]
        write_bulk(
            search, [copy_write(old, new, one, settings.lease_seconds) for one in part], settings.journal_bytes, 30
        )
    search.send(swap_alias_call(old, new))
