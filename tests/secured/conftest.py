"""Start an OpenSearch 2.19 with TLS, users and the shipped roles, and connect each component as its user."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import httpx
import pytest

from infra.local_servers import LocalSettings
from infra.opensearch.cluster import Credentials, KeyPair, secure_config, temporary_config
from infra.opensearch.node import start_node
from services.directories import child_account, make_directory
from services.opensearch.client import SyncSearchClient
from tests.certificates import Authority
from tests.secured.secured_parts import ROLES, Secured


@pytest.fixture(scope="session")
def secured_node(local_settings: LocalSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    pairs = {name: KeyPair(*authority.sign(name, host="127.0.0.1")) for name in ("the-node", "the-admin")}
    credentials = Credentials(authority.ca, pairs["the-node"], pairs["the-admin"])
    with temporary_config(local_settings) as config:
        repositories = make_directory(config.root.parent / "repositories", child_account(local_settings.run_as))
        base = replace(config, heap="512m", extra_settings={"path.repo": [str(repositories)]})
        with (
            start_node(secure_config(base, credentials, "the-admin", "the-node")) as node,
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
def client_of(secured_node: Secured) -> Iterator[Callable[[str], SyncSearchClient]]:
    """Provide `client_of(role)`: a client with that role."""
    made: list[SyncSearchClient] = []

    def make(role: str) -> SyncSearchClient:
        made.append(SyncSearchClient(secured_node.settings(role)))
        return made[-1]

    yield make
    for one in made:
        with closing(one):
            pass
