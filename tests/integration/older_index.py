"""Create an index as a version before folding did: with OpenSearch's own analysers."""

import httpx
import orjson

from services.index_spec import Generation, IndexNames
from services.opensearch.generations import create_index_body
from services.settings import Settings


def create_older_index(api: httpx.Client, settings: Settings, name: str) -> None:
    """Create an empty index of the language `english`. Nothing may have asked for the index before."""
    assert api.put(f"/v1/indexes/{name}", json={}).raise_for_status().json()["folds"] is True
    physical = IndexNames(settings.index_prefix).physical(name, 1)
    with httpx.Client(base_url=settings.opensearch_url, timeout=30, trust_env=False) as node:
        recorded = node.get(f"/{physical}/_mapping").json()[physical]["mappings"]["_meta"]["sparsewell"]
        older = Generation.model_validate({key: value for key, value in recorded.items() if key != "folds"})
        body = create_index_body(older, settings, [older.alias])
        del body["settings"]["similarity"]
        fields = body["mappings"]["properties"]
        fields["lexical"] = fields["title_words"] = {"type": "text", "analyzer": "english"}
        fields["spelling"] |= {"analyzer": "standard"}
        node.delete(f"/{physical}").raise_for_status()
        made = node.put(f"/{physical}", content=orjson.dumps(body), headers={"content-type": "application/json"})
        made.raise_for_status()
