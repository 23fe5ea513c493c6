"""Document-level security: every request is restricted to the caller's documents or refused."""

from typing import Any

import orjson
import pytest

from services.access.document_level_security import DocumentLevelSecurity
from services.encoders.manifest import WindowSettings
from services.errors import Forbidden
from services.filters.tree import OneOf
from services.index_spec import EncoderIdentity, Generation, IndexSpec
from services.opensearch.client import Call

MINE = OneOf("tenant", ("a",))
CLAUSE = {"term": {"metadata.tenant": "a"}}
ANY: dict[str, Any] = {"query": {"match_all": {}}}


def generation(name: str) -> Generation:
    return Generation(
        index=name,
        number=1,
        physical=f"p-{name}.g000001",
        spec=IndexSpec.model_validate({"fields": {"tenant": "keyword"}}),
        encoder=EncoderIdentity(name="e", fingerprint="f"),
        window=WindowSettings(pieces=100, overlap=10),
        created_at="now",
    )


@pytest.fixture
def within() -> DocumentLevelSecurity:
    found = DocumentLevelSecurity()
    for name in ("x", "y"):
        found.admit(generation(name), MINE)
    return found


def body(call: Call) -> Any:
    return orjson.loads(call.body or b"")


def clauses(search: dict[str, Any]) -> str:
    assert search["query"]["bool"]["must"] == [ANY["query"]]
    return str(search["query"]["bool"]["filter"])


def test_a_search_query_is_wrapped_in_the_filter(within: DocumentLevelSecurity) -> None:
    one = within.filter_call(Call("POST", "/p-x.g000001/_search", orjson.dumps(ANY | {"size": 3})))
    assert body(one)["size"] == 3 and body(one)["query"]["bool"]["filter"][0] == CLAUSE
    several = body(within.filter_call(Call("POST", "/p-x.g000001,p-y.g000001/_search", orjson.dumps(ANY))))
    snapshot = body(within.filter_call(Call("POST", "/_search", orjson.dumps(ANY | {"pit": {"id": "s"}}))))
    for search in (several, snapshot):
        said = clauses(search)
        assert said.count(str(CLAUSE)) == 2 and "p-x.g000001" in said and "p-y.g000001" in said


def test_each_search_of_a_multi_search_is_wrapped(within: DocumentLevelSecurity) -> None:
    lines = [{"index": "p-x.g000001"}, ANY, {}, ANY | {"pit": {"id": "s"}}]
    sent = within.filter_call(Call("POST", "/_msearch", b"\n".join(map(orjson.dumps, lines)) + b"\n"))
    found = [orjson.loads(line) for line in (sent.body or b"").splitlines()]
    assert [str(CLAUSE) in str(one) for one in found] == [False, True, False, True]


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("POST", "/p-z.g000001/_search", ANY),
        ("POST", "/p-x.g000001,p-z.g000001/_search", ANY),
        ("POST", "/p-*/_search", ANY),
        ("POST", "/_all/_search", ANY),
        ("POST", "/_search", ANY),
        ("POST", "/p-x.g000001/_search", {}),
        ("POST", "/p-x.g000001/_search", ANY | {"suggest": {}}),
        ("POST", "/p-x.g000001/_search", ANY | {"script_fields": {}}),
        ("POST", "/p-x.g000001/_search", ANY | {"aggs": {"a": {"global": {}}}}),
        ("POST", "/p-x.g000001/_search", ANY | {"aggs": {"a": {"filter": {}, "aggs": {"b": {"global": {}}}}}}),
        ("POST", "/p-x.g000001/_search", ANY | {"aggs": {"a": {"significant_terms": {}}}}),
        ("POST", "/_mget", {"docs": [{"_index": "p-z.g000001", "_id": "1", "_source": []}]}),
        ("POST", "/p-x.g000001/_mget", {"ids": ["1"]}),
        ("GET", "/p-z/_doc/1", {}),
        ("GET", "/p-x.g000001/_termvectors/1", {}),
        ("POST", "/p-x.g000001/_count", ANY),
        ("POST", "/p-x.g000001/_explain/1", ANY),
        ("POST", "/p-x.g000001/_update/1", {}),
        ("PUT", "/p-x.g000001/_doc/1", {}),
        ("DELETE", "/p-x.g000001/_doc/1", {}),
        ("POST", "/_bulk", {}),
        ("POST", "/p-z.g000001/_search/point_in_time", {}),
        ("POST", "/p-z.g000001/_analyze", {}),
        ("POST", "/_search/scroll", {}),
        ("GET", "/_cat/indices", {}),
        ("DELETE", "/p-x.g000001", {}),
    ],
)
def test_others_are_refused(within: DocumentLevelSecurity, method: str, path: str, content: dict[str, Any]) -> None:
    with pytest.raises(Forbidden, match="filtered_key"):
        within.filter_call(Call(method, path, orjson.dumps(content)))


def test_documents_by_id_are_limited_to_the_callers(within: DocumentLevelSecurity) -> None:
    wanted = ["title", "metadata.year"]
    documents = {"docs": [{"_index": "p-x.g000001", "_id": str(n), "_source": wanted} for n in range(4)]}
    call = Call("POST", "/_mget", orjson.dumps(documents))
    sent = body(within.filter_call(call))
    assert sent["docs"][0]["_source"] == ["metadata", "metadata.year", "state", "title"]

    def read(n: int, **source: Any) -> dict[str, Any]:
        return {"_index": "p-x.g000001", "_id": str(n), "found": True, "_source": source}

    answer = {
        "docs": [
            read(0, title="t", state="encoded", metadata={"tenant": ["b", "a"], "year": 1, "more": 2}),
            read(1, title="t", state="encoded", metadata={"tenant": "b"}),
            read(2, state="deleted"),
            {"_index": "p-x.g000001", "_id": "3", "found": False},
        ]
    }
    shown = within.filter_answer(call, answer)["docs"]
    assert shown[0]["_source"] == {"title": "t", "metadata": {"year": 1}}
    assert [one["found"] for one in shown] == [True, False, False, False]
    assert all("_source" not in one for one in shown[1:])


def test_a_document_in_real_time_is_limited_to_the_callers(within: DocumentLevelSecurity) -> None:
    call = Call("GET", "/p-x/_doc/1", params={"_source_includes": "state,title"})
    assert within.filter_call(call).params["_source_includes"] == "state,title,metadata,state"
    found = {"_index": "p-x.g000001", "_id": "1", "_version": 4, "found": True}
    theirs = found | {"_source": {"state": "encoded", "title": "t", "metadata": {"tenant": "b"}}}
    mine = found | {"_source": {"state": "encoded", "title": "t", "metadata": {"tenant": "a"}}}
    elsewhere = mine | {"_index": "p-x.g000002"}
    assert within.filter_answer(call, mine)["_source"] == {"state": "encoded", "title": "t"}
    for hidden in (theirs, elsewhere):
        assert within.filter_answer(call, hidden)["found"] is False
    whole = Call("GET", "/p-x/_doc/1", params={"_source_excludes": "windows"})
    assert within.filter_answer(whole, mine) is mine
