"""The key that a client of the API sends."""

from pydantic import Field, SecretStr

from services.environment import EnvironmentSettings


class ClientSettings(EnvironmentSettings):
    """What commands and the Python client read, and services do not."""

    api_key: SecretStr = Field(SecretStr(""), description="sent to the API")


def bearer(key: str) -> dict[str, str]:
    """The headers that carry a key; none for none."""
    return {"authorization": f"Bearer {key}"} if key else {}


def own_bearer() -> dict[str, str]:
    """Those with SPARSEWELL_API_KEY."""
    return bearer(ClientSettings.read().api_key.get_secret_value())
