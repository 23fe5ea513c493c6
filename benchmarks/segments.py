"""What an index is made of, and making it one segment."""

import time
from typing import Any

from services.index_spec import Generation
from services.opensearch.client import Call, SyncSearch


def settle(search: SyncSearch, generation: Generation) -> None:
    """Returns once no merge runs on the index."""
    call = Call("GET", f"/{generation.physical}/_stats/merge", params={"filter_path": "_all.total"})
    while search.send(call)["_all"]["total"]["merges"]["current"]:
        time.sleep(0.5)


def merge_to_one(search: SyncSearch, generation: Generation) -> None:
    """One segment. Half a million documents take minutes."""
    merge = {"max_num_segments": 1}
    search.send(Call("POST", f"/{generation.physical}/_forcemerge", params=merge, timeout=1800))


def size_of(search: SyncSearch, generation: Generation) -> dict[str, Any]:
    """Segments and documents of an index, and its bytes a document."""
    call = Call("GET", f"/{generation.physical}/_stats/segments,docs,store", params={"filter_path": "_all.primaries"})
    found = search.send(call)["_all"]["primaries"]
    documents = int(found["docs"]["count"])
    return {
        "segments": int(found["segments"]["count"]),
        "documents": documents,
        "bytes_a_document": round(found["store"]["size_in_bytes"] / max(documents, 1)),
    }
