"""How settings are read: from environment variables, by a factory that asks, with errors that name the variable."""

from typing import Self

from pydantic import AliasChoices, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.errors import ConfigurationError


def also_plain(name: str) -> AliasChoices:
    """The prefixed variable first, then the name that other tools use."""
    return AliasChoices(f"SPARSEWELL_{name}", name)


class EnvironmentSettings(BaseSettings):
    """Base of all settings: prefix `SPARSEWELL_`, immutable, other variables ignored, an empty one is unset."""

    model_config = SettingsConfigDict(
        env_prefix="SPARSEWELL_", extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True
    )

    @classmethod
    def read(cls) -> Self:
        """Reads the environment. Raises ConfigurationError (`bad_setting`)."""
        try:
            return cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = "_".join(str(part) for part in first["loc"]).upper().removeprefix("SPARSEWELL_")
            subject = f"The environment variable SPARSEWELL_{name} is not usable" if name else "The settings clash"
            raise ConfigurationError(
                "bad_setting", f"{subject}: {first['msg'].removeprefix('Value error, ')}."
            ) from None


def listed(text: str) -> list[str]:
    """The names in a setting that holds several, separated by commas."""
    return [name for part in text.split(",") if (name := part.strip())]
