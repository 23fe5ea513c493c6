"""An OpenSearch 2.19 with TLS, users and our roles; and each part of sparsewell as its user."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir

import httpx
import pytest
from certificates import Authority
from secured_parts import ROLES, Secured

from infra.accounts import child_account
from infra.directories import make_directory, temporary_state
from infra.opensearch.mounts import place_for_data
from infra.opensearch.node import NodeConfig, start_node
from infra.opensearch.secured import Credentials, Pair, secured
from infra.settings import LocalSettings
from services.opensearch.client import SyncSearch


@pytest.fixture(scope="session")
def secured_node(local_settings: LocalSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    pairs = {name: Pair(*authority.sign(name, host="127.0.0.1")) for name in ("the-node", "the-admin")}
    credentials = Credentials(authority.ca, pairs["the-node"], pairs["the-admin"])
    account = child_account(local_settings.run_as)
    with (
        temporary_state(account, place_for_data(Path(gettempdir()))) as directory,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("OPENSEARCH_JAVA_OPTS", "-XX:TieredStopAtLevel=1")  # it does not live long
        repositories = make_directory(directory / "repositories", account)
        base = replace(
            NodeConfig.of(local_settings),
            root=directory / "opensearch", data=None, http_port=0, transport_port=0, heap="512m", tied=True,
            further={"path.repo": [str(repositories)]},
        )  # fmt: skip
        with (
            start_node(secured(base, credentials, "the-admin", "the-node")) as node,
            httpx.Client(base_url=node.url, trust_env=False, verify=credentials.context, timeout=30) as admin,
        ):
            passwords = {role: f"Aa1!{secrets.token_urlsafe(24)}" for role in ROLES}
            for role, password in passwords.items():
                made = admin.put(
                    f"/_plugins/_security/api/internalusers/sparsewell-{role}", json={"password": password}
                )
                assert made.is_success, made.text
            yield Secured(node.url, authority, admin, passwords, repositories)


@pytest.fixture
def client_of(secured_node: Secured) -> Iterator[Callable[[str], SyncSearch]]:
    """`client_of(role)`: a client with that role."""
    made: list[SyncSearch] = []

    def make(role: str) -> SyncSearch:
        made.append(SyncSearch(secured_node.settings(role)))
        return made[-1]

    yield make
    for one in made:
        with closing(one):
            pass
