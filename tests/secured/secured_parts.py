"""Hold a secured node for the tests."""

from dataclasses import dataclass
from pathlib import Path

import httpx

from services.settings import Settings
from tests.certificates import Authority

ROLES = ("api", "worker", "operator", "backup")


@dataclass(frozen=True)
class Secured:
    """A running node, its administrator, and the credentials of its users."""

    url: str
    authority: Authority
    admin: httpx.Client
    passwords: dict[str, str]
    repositories: Path

    def settings(self, role: str, **further: object) -> Settings:
        """Return the settings of a component with this role, with user and password."""
        given = {
            "opensearch_url": self.url,
            "opensearch_ca": self.authority.ca,
            "opensearch_user": f"sparsewell-{role}",
            "opensearch_password": self.passwords[role],
            "encoder": "standin",
        }
        return Settings.model_validate(given | further)
