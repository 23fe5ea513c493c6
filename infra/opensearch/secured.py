"""A node with the security plugin: TLS, users and the roles of infra/opensearch/security. For tests and tries.

Maven Central has the plugin for some releases only: 2.19.4 is one, 3.6.0 is none.
"""

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from infra.opensearch.node import NodeConfig

SHIPPED = Path(__file__).with_name("security")
VERSION = "2.19.4"
# Where the plugin looks within the node's configuration.
_FOLDER = "opensearch-security"


@dataclass(frozen=True)
class Pair:
    """Files of a certificate and its key, in PEM."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Credentials:
    """The authority, the node's certificate and that of the administrator, who needs no role."""

    ca: Path
    node: Pair
    admin: Pair

    @cached_property
    def context(self) -> ssl.SSLContext:
        """For a client that is the administrator."""
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(self.admin.cert, self.admin.key)
        return context


def secured(config: NodeConfig, credentials: Credentials, admin: str, node: str) -> NodeConfig:
    """The same node with TLS and roles; `admin` and `node` are the names in those certificates."""
    files = {
        "ca.pem": credentials.ca.read_text(),
        "node.pem": credentials.node.cert.read_text(),
        "node.key": credentials.node.key.read_text(),
        **{f"{_FOLDER}/{name}": text for name, text in _configuration().items()},
    }
    settings: dict[str, object] = {
        **{f"plugins.security.ssl.{layer}.pemcert_filepath": "node.pem" for layer in ("http", "transport")},
        **{f"plugins.security.ssl.{layer}.pemkey_filepath": "node.key" for layer in ("http", "transport")},
        **{f"plugins.security.ssl.{layer}.pemtrustedcas_filepath": "ca.pem" for layer in ("http", "transport")},
        "plugins.security.ssl.http.enabled": True,
        "plugins.security.ssl.http.clientauth_mode": "OPTIONAL",
        "plugins.security.ssl.transport.enforce_hostname_verification": False,
        "plugins.security.authcz.admin_dn": [f"CN={admin}"],
        "plugins.security.nodes_dn": [f"CN={node}"],
        "plugins.security.allow_default_init_securityindex": True,
        "plugins.security.audit.type": "noop",
        "plugins.security.disabled": False,
        # restores are of our indexes and never of the plugin's own
        "plugins.security.check_snapshot_restore_write_privileges": True,
        "plugins.security.enable_snapshot_restore_privilege": True,
        "plugins.security.restapi.roles_enabled": ["all_access"],
    }
    return replace(
        config,
        distribution=replace(config.distribution, version=VERSION, security=True),
        home=None,
        files={**config.files, **files},
        further={**settings, **config.further},
        context=credentials.context,
    )


def _configuration() -> Mapping[str, str]:
    """What the plugin reads at its first start. JSON is YAML."""
    authentication = {
        "basic": {
            "http_enabled": True, "transport_enabled": True, "order": 2,
            "http_authenticator": {"type": "basic", "challenge": True},
            "authentication_backend": {"type": "intern"},
        },
        "certificate": {
            "http_enabled": True, "transport_enabled": False, "order": 1,
            "http_authenticator": {"type": "clientcert", "challenge": False, "config": {"username_attribute": "cn"}},
            "authentication_backend": {"type": "noop"},
        },
    }  # fmt: skip
    config = {"dynamic": {"http": {"anonymous_auth_enabled": False}, "authc": authentication, "authz": {}}}
    own = {
        "config": ("config", {"config": config}),
        "internal_users": ("internalusers", {}),
        "action_groups": ("actiongroups", {}),
        "tenants": ("tenants", {}),
        "nodes_dn": ("nodesdn", {}),
    }
    shipped = {f"{name}.yml": (SHIPPED / f"{name}.yml").read_text() for name in ("roles", "roles_mapping")}
    return shipped | {
        f"{name}.yml": json.dumps({"_meta": {"type": kind, "config_version": 2}} | content)
        for name, (kind, content) in own.items()
    }
