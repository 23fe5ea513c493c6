"""Who we are towards OpenSearch: headers that a request carries besides its own."""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Protocol

from services.connections import ConnectionSettings
from services.errors import BackendUnavailable, ConfigurationError
from services.extra import needs
from services.secret_files import SecretFile

# Amazon's credentials last for hours; botocore begins to fetch new ones a quarter of an hour before their end.
EARLY_SECONDS = 15 * 60


class Access(Protocol):
    """What a request is sent with. `headers` is asked for each one."""

    def headers(self, method: str, url: str, body: bytes | None) -> Mapping[str, str]:
        """The headers; `url` as it is sent, with its query."""

    def waits(self) -> bool:
        """Whether `headers` would ask the network first, so that an event loop lets a thread do it."""


def access_of(settings: ConnectionSettings) -> Access | None:
    """None: nothing, or what the address says (user and password within), which the library sends itself.

    Raises ConfigurationError (`bad_secret_file`, `missing_library`, `no_aws_credentials`).
    """
    if settings.opensearch_aws_region:
        return Amazon(_aws_credentials(), settings.opensearch_aws_region)
    if not settings.opensearch_user:
        return None
    if settings.opensearch_password_file:
        return Basic(
            settings.opensearch_user, SecretFile("OPENSEARCH_PASSWORD_FILE", settings.opensearch_password_file)
        )
    return Basic(settings.opensearch_user, settings.opensearch_password or "")


class Basic:
    """User and password; a password in a file may change while we run."""

    def __init__(self, user: str, password: str | SecretFile) -> None:
        self._user, self._password = user, password
        self._made: tuple[str, Mapping[str, str]] | None = None
        self.headers("GET", "", None)

    def headers(self, method: str, url: str, body: bytes | None) -> Mapping[str, str]:
        """The same for each request, until the password changes."""
        password = self._password if isinstance(self._password, str) else self._password.text()
        if self._made is None or self._made[0] != password:
            token = b64encode(f"{self._user}:{password}".encode()).decode()
            self._made = password, {"authorization": f"Basic {token}"}
        return self._made[1]

    def waits(self) -> bool:
        """Never: a file is read."""
        return False


class Amazon:
    """Signature version 4 by opensearch-py's signer; credentials are botocore's, which renews those that expire."""

    def __init__(self, credentials: Any, region: str) -> None:
        from opensearchpy.helpers.signer import AWSV4Signer

        self._credentials = credentials
        self._signer = AWSV4Signer(credentials, region)

    def headers(self, method: str, url: str, body: bytes | None) -> Mapping[str, str]:
        """The signature of this request. Raises BackendUnavailable (`opensearch_unauthorized`)."""
        from botocore.exceptions import BotoCoreError

        try:
            return self._signer.sign(method, url, body)
        except BotoCoreError as error:
            raise BackendUnavailable(
                "opensearch_unauthorized", f"Amazon's credentials could not be renewed ({type(error).__name__})."
            ) from error

    def waits(self) -> bool:
        """Whether credentials that expire are about to."""
        about_to = getattr(self._credentials, "refresh_needed", None)
        return about_to is not None and bool(about_to(EARLY_SECONDS))


def _aws_credentials() -> Any:
    with needs("botocore", "sign requests for Amazon", "aws"):
        import botocore.session
    from botocore.exceptions import BotoCoreError

    try:
        credentials = botocore.session.get_session().get_credentials()
    except BotoCoreError as error:
        raise _no_credentials(type(error).__name__) from error
    if credentials is None:
        raise _no_credentials("none were found")
    return credentials


def _no_credentials(why: str) -> ConfigurationError:
    return ConfigurationError(
        "no_aws_credentials",
        f"SPARSEWELL_OPENSEARCH_AWS_REGION is set, and Amazon's credentials are not to be had ({why}). They are looked "
        "for in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, Amazon's files, a role for the pod or task, the machine.",
    )
