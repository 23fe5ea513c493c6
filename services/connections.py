"""Settings of the connections to OpenSearch and Redis: addresses, authorities, certificates, users."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from services.addresses import OpenSearchUrl, RedisUrl, each_address, names_a_user
from services.environment import EnvironmentSettings, also_plain
from services.redis_access import full_address
from services.secret_files import SecretFile
from services.tls import TlsFiles


def _local_opensearch(given: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{given.get('opensearch_port')}"


def _local_redis(given: dict[str, Any]) -> str:
    return f"redis://127.0.0.1:{given.get('redis_port')}/0"


class ConnectionSettings(EnvironmentSettings):
    """How each process reaches OpenSearch and Redis. What may be a secret is left out where settings are printed."""

    # Where no address is given, it is that of the local server: a port that is moved there is moved here. (Of a port 0
    # only the stack that started the server knows what became of it, so such an address is left for it to replace.)
    opensearch_port: int = Field(19200, ge=0, le=65535)
    redis_port: int = Field(16379, ge=0, le=65535)
    opensearch_url: OpenSearchUrl = Field(
        default_factory=_local_opensearch,
        validate_default=False,
        validation_alias=also_plain("OPENSEARCH_URL"),
        repr=False,
    )
    redis_url: RedisUrl = Field(
        default_factory=_local_redis, validate_default=False, validation_alias=also_plain("REDIS_URL"), repr=False
    )
    opensearch_pool: int = Field(32, ge=1)
    opensearch_timeout: float = Field(30.0, gt=0)

    opensearch_ca: Path | None = Field(None, description="certificates (PEM) of the authorities that sign OpenSearch's")
    opensearch_verify: bool = Field(True, description="whether OpenSearch's certificate is checked")
    opensearch_cert: Path | None = Field(None, description="our own certificate (PEM), perhaps with its key")
    opensearch_key: Path | None = Field(None, description="the key of our own certificate (PEM)")
    opensearch_user: str | None = None
    opensearch_password: str | None = Field(None, repr=False)
    opensearch_password_file: Path | None = Field(None, description="read again when it changes")
    opensearch_aws_region: str | None = Field(
        None, pattern=r"^[a-z0-9-]+$", description="requests are signed for an Amazon OpenSearch Service domain there"
    )

    redis_ca: Path | None = Field(None, description="certificates (PEM) of the authorities that sign Redis'")
    redis_verify: bool = Field(True, description="whether Redis' certificate is checked")
    redis_cert: Path | None = Field(None, description="our own certificate (PEM)")
    redis_key: Path | None = Field(None, description="the key of our own certificate (PEM)")
    redis_user: str | None = None
    redis_password: str | None = Field(None, repr=False)
    redis_password_file: Path | None = Field(None, description="read when a process starts")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for name, secure in (("opensearch", "https://"), ("redis", "rediss://")):
            self._check_user(name)
            self._check_tls(name, secure)
        if self.opensearch_password_file or self.opensearch_password:
            _need(bool(self.opensearch_user), "an OPENSEARCH_PASSWORD has no OPENSEARCH_USER")
        if self.opensearch_aws_region:
            user = bool(self.opensearch_user) or any(map(names_a_user, each_address(self.opensearch_url)))
            _need(not user, "OPENSEARCH_AWS_REGION has requests signed: leave user and password away")
        return self

    def _check_user(self, name: str) -> None:
        upper = name.upper()
        user, password, file = (getattr(self, f"{name}_{part}") for part in ("user", "password", "password_file"))
        _need(not (password and file), f"{upper}_PASSWORD and {upper}_PASSWORD_FILE are two passwords: give one")
        _need(bool(password or file) or not user, f"{upper}_USER has no {upper}_PASSWORD or {upper}_PASSWORD_FILE")
        within = any(map(names_a_user, each_address(getattr(self, f"{name}_url"))))
        _need(not (within and (password or file)), f"{upper}_URL names a user already: leave it away there or here")

    def _check_tls(self, name: str, secure: str) -> None:
        upper = name.upper()
        ca, cert, key = (getattr(self, f"{name}_{part}") for part in ("ca", "cert", "key"))
        _need(not key or bool(cert), f"{upper}_KEY has no {upper}_CERT")
        plain = [url for url in each_address(getattr(self, f"{name}_url")) if not url.startswith(secure)]
        _need(not ((ca or cert) and plain), f"{upper}_CA and {upper}_CERT need addresses that begin with {secure}")

    @property
    def opensearch_tls(self) -> TlsFiles:
        """What a TLS connection to OpenSearch is made with."""
        return TlsFiles(
            "OPENSEARCH", self.opensearch_ca, self.opensearch_cert, self.opensearch_key, self.opensearch_verify
        )

    @property
    def redis_address(self) -> str:
        """The address of Redis with everything that its clients (redis-py, kombu, Celery) need. A secret."""
        tls = TlsFiles("REDIS", self.redis_ca, self.redis_cert, self.redis_key, self.redis_verify)
        file = self.redis_password_file
        password = SecretFile("REDIS_PASSWORD_FILE", file).text() if file else self.redis_password
        return full_address(self.redis_url, self.redis_user, password, tls)


def _need(fulfilled: bool, otherwise: str) -> None:
    if not fulfilled:
        raise ValueError(otherwise)
