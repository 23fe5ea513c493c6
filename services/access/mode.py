"""Whether callers are asked who they are: as the settings say, and never unasked where others can reach the service."""

import ipaddress
from pathlib import Path
from typing import Final, Literal

from services.access.key_text import TOKEN
from services.errors import ConfigurationError
from services.settings import Settings

Mode = Literal["open", "keys"]
LEAST_CHARACTERS: Final = 32


def access_mode(settings: Settings, host: str | None = None) -> Mode:
    """The mode of a service that listens on `host` (none: the API's).

    Raises ConfigurationError (`access_undecided`) where it would be open to others and nobody said so.
    """
    if settings.access != "auto":
        return settings.access
    if settings.admin_key_file or settings.oidc_issuer:
        return "keys"
    host = settings.api_host if host is None else host
    if is_loopback(host):
        return "open"
    raise ConfigurationError(
        "access_undecided",
        f"The service would listen on {host} and let everybody in. Set SPARSEWELL_ACCESS=keys with "
        "SPARSEWELL_ADMIN_KEY_FILE (`sparsewell keys generate` makes one) or SPARSEWELL_OIDC_ISSUER, or "
        "SPARSEWELL_ACCESS=open where something in front of it asks who comes.",
    )


def model_keys(settings: Settings, host: str) -> tuple[str, ...]:
    """The keys that a model process which listens on `host` asks for; none: it asks nobody.

    Raises ConfigurationError (`access_undecided`) where it would be open to others and nobody said so.
    """
    keys = read_keys(settings.model_key_file, "SPARSEWELL_MODEL_KEY_FILE")
    if keys or settings.access == "open" or is_loopback(host):
        return keys
    raise ConfigurationError(
        "access_undecided",
        f"The model process would listen on {host} and let everybody in. Set SPARSEWELL_MODEL_KEY_FILE here and for "
        "the API (`sparsewell keys generate` makes one), or SPARSEWELL_ACCESS=open.",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address. A name but `localhost` is none that one could know of."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_keys(path: str, variable: str) -> tuple[str, ...]:
    """The keys in a file, one a line: two while one replaces the other; none for no file.

    Raises ConfigurationError (`bad_key_file`), whose words never hold what the file does.
    """
    if not path:
        return ()
    try:
        lines = Path(path).read_text().split()
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad_key_file", f"{variable} cannot be read ({type(error).__name__}).") from None
    if not lines or not all(TOKEN.fullmatch(one) and len(one) >= LEAST_CHARACTERS for one in lines):
        raise ConfigurationError(
            "bad_key_file",
            f"{variable} holds one key a line, each of {LEAST_CHARACTERS} or more letters, digits and -._~+/: "
            "`sparsewell keys generate` makes one.",
        )
    return tuple(lines)
