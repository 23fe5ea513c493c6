"""Names of other libraries that we use although they are not public.

An upgrade may remove such a name. Each test names the broken feature. pyproject.toml bounds these libraries, so that an
upgrade is a decision: raise the bound when these tests pass.
"""

import inspect
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from packaging.requirements import Requirement

BOUNDED = ("aiohttp", "kombu", "opensearch-py", "uvicorn")
PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def require(library: str, owner: object, **uses: str) -> None:
    """Fail with a line for each name that `owner` lacks. `uses` maps each name to the feature that needs it."""
    name = getattr(owner, "__name__", type(owner).__name__)
    lines = [f"{name}.{one} is gone: {broken}." for one, broken in uses.items() if not hasattr(owner, one)]
    assert not lines, f"{library} {version(library)}: " + " ".join(lines)


def require_parameters(library: str, method: Any, *names: str, broken: str) -> None:
    """Fail unless these are the first parameters of the method, in this order (without `self`)."""
    taken = [name for name in inspect.signature(method).parameters if name != "self"]
    assert taken[: len(names)] == list(names), (
        f"{library} {version(library)}: {method.__qualname__} takes {taken}, not {list(names)}: {broken}."
    )


def test_a_missing_name_is_reported_with_its_use() -> None:
    class Channel:
        kept = 1

    with pytest.raises(AssertionError, match=r"kombu \S+: Channel\._lookup is gone: nothing is found\."):
        require("kombu", Channel, kept="never mind", _lookup="nothing is found")
    with pytest.raises(AssertionError, match="nothing is split"):
        require_parameters("kombu", str.split, "maxsplit", broken="nothing is split")


@pytest.mark.parametrize("library", BOUNDED)
def test_libraries_with_used_private_names_have_an_upper_bound(library: str) -> None:
    declared = [Requirement(line) for line in tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]]
    (found,) = (one for one in declared if one.name == library)
    assert any(one.operator == "<" for one in found.specifier), (
        f"{found} has no upper bound: its next version may lack a private name that we use."
    )
    assert version(library) in found.specifier


def test_uvicorn_has_what_our_bounded_connections_change() -> None:
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
    from uvicorn.server import ServerState

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("never called")

    heads = "the head of a request is no longer bounded in time and bytes"
    bodies = "BoundedConnection no longer knows whether a body is still to come"
    require(
        "uvicorn", HttpToolsProtocol,
        connection_made="connections are no longer counted against SPARSEWELL_MAX_CONNECTIONS",
        connection_lost="timers of a connection outlive it",
        data_received=heads,
        on_message_begin=heads,
        on_url=heads,
        on_header=heads,
        on_headers_complete=heads,
        on_body=bodies,
        on_message_complete=bodies,
        on_response_complete="a connection that was answered early reads the rest of its body for ever",
        pause_writing="a client that does not read its answer holds its connection for ever",
        resume_writing="a client that reads slowly loses its connection",
        send_400_response="a malformed request is answered without problem+json and is not counted",
    )  # fmt: skip
    protocol = HttpToolsProtocol(
        uvicorn.Config(application, log_config=None),
        ServerState(),
        {},
        _loop=object(),  # type: ignore[arg-type]
    )
    require(
        "uvicorn", protocol,
        connections="connections are no longer counted against SPARSEWELL_MAX_CONNECTIONS",
        cycle="a refusal may be written into another answer",
        pipeline="a refusal may be written into another answer",
        timeout_keep_alive_task="an idle connection is ended as one whose head is too slow",
        transport="a refusal cannot be written",
        loop="no timer can be set",
    )  # fmt: skip
    written = inspect.getsource(RequestResponseCycle)
    states = ("response_complete", "response_started", "disconnected", "message_event", "keep_alive")
    gone = [name for name in states if f"self.{name}" not in written]
    assert not gone, (
        f"uvicorn {version('uvicorn')}: a request has no {', '.join(gone)} any more: BoundedConnection cannot tell "
        "whether an answer is under way, nor end it."
    )
    # `url` must hold a probe's address while the head of its request is read.
    assert "self.url" in inspect.getsource(HttpToolsProtocol), (
        f"uvicorn {version('uvicorn')}: HttpToolsProtocol.url is gone: a full process can't tell a probe from a client."
    )


async def test_opensearch_py_has_what_our_connections_change() -> None:
    from opensearchpy import AIOHttpConnection, ConnectionPool, Urllib3HttpConnection

    connect = "AsyncNode cannot make a session that gives up connecting after CONNECT_SECONDS"
    node = AIOHttpConnection(host="127.0.0.1")
    require("opensearch-py", node, session=connect, headers=connect, _limit=connect, _ssl_context=connect)
    assert node.session is None, (
        f"opensearch-py {version('opensearch-py')}: AIOHttpConnection makes its session at once: {connect}."
    )
    require("opensearch-py", import_module("opensearchpy._async.http_aiohttp"), OpenSearchClientResponse=connect)
    names = ("method", "url", "params", "body", "timeout", "ignore", "headers")
    for kind in (AIOHttpConnection, Urllib3HttpConnection):
        require_parameters(
            "opensearch-py", kind.perform_request, *names, broken="requests are sent without our signature and deadline"
        )
    pool = inspect.signature(ConnectionPool.__init__).parameters
    assert {"dead_timeout", "timeout_cutoff"} <= set(pool), (
        f"opensearch-py {version('opensearch-py')}: a node that came back is left alone for half an hour."
    )
    require("opensearch-py", ConnectionPool, mark_dead="a node that hangs is asked again and again")


def test_aiohttp_has_what_our_connector_changes() -> None:
    from aiohttp import connector

    require(
        "aiohttp", connector, NEEDS_CLEANUP_CLOSED="idle TLS connections to OpenSearch stay half closed"
    )  # fmt: skip
    require_parameters(
        "aiohttp", aiohttp.TCPConnector.connect, "req", "traces", "timeout",
        broken="connecting to a machine that is gone takes a request's whole time",
    )  # fmt: skip


def test_kombu_has_what_our_redis_transport_changes() -> None:
    from kombu.transport import redis, virtual

    ends = "an item on a queue that is no message ends the worker that takes it"
    back = "a message that was taken while Redis was full cannot be given back"
    full = "a Redis without memory ends the worker"
    require(
        "kombu", redis.Channel,
        _brpop_read=ends, _lookup=back, _q_for_pri=back, _get_message_priority=back, conn_or_acquire=back,
    )  # fmt: skip
    require(
        "kombu", redis.QoS,
        append=full, ack=full, restore_by_tag=full, restore_visible=full,
        _delivered=back, _dirty=back, unacked_key=full, unacked_index_key=full,
    )  # fmt: skip
    require_parameters("kombu", redis.QoS.append, "message", "delivery_tag", broken=full)
    require_parameters("kombu", redis.QoS.ack, "delivery_tag", broken=full)
    require_parameters("kombu", redis.QoS.restore_by_tag, "tag", "client", "leftmost", broken=full)
    assert redis.Channel.QoS is redis.QoS
    assert redis.Transport.Channel is redis.Channel
    calls = inspect.getsource(redis)
    assert "_brpop_read" in calls.replace("def _brpop_read", ""), (
        f"kombu {version('kombu')}: nothing calls Channel._brpop_read any more: {ends}."
    )
    payload = {"body": "", "properties": {"delivery_tag": "1", "delivery_info": {}}, "headers": {}}
    require("kombu", virtual.Message(payload, channel=None), _raw=back)
