"""Settings of every process, read from environment variables (`SPARSEWELL_*`) when a factory asks, never at import.

`EnvironmentSettings` is the base, `ConnectionSettings` covers OpenSearch and Redis, `Settings` adds everything else.
docs/configuration.md lists all of them with their defaults. Addresses are validated on reading, and errors, logs and
reprs never show the passwords that they may contain.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pydantic import AfterValidator, AliasChoices, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.errors import ConfigurationError
from services.index_spec import DocumentLimits
from services.tls import SecretFile, TlsFiles


class EnvironmentSettings(BaseSettings):
    """Base of all settings: prefix `SPARSEWELL_`, immutable, unknown variables ignored, empty ones unset."""

    model_config = SettingsConfigDict(
        env_prefix="SPARSEWELL_", extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True
    )

    @classmethod
    def read(cls) -> Self:
        """Read the environment. Raises ConfigurationError (`bad_setting`) with the name of the variable."""
        try:
            return cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = "_".join(str(part) for part in first["loc"]).upper().removeprefix("SPARSEWELL_")
            subject = f"The environment variable SPARSEWELL_{name} is not usable" if name else "The settings clash"
            raise ConfigurationError(
                "bad_setting", f"{subject}: {first['msg'].removeprefix('Value error, ')}."
            ) from None


def unprefixed_alias(name: str) -> AliasChoices:
    """Return the alias of a variable: the prefixed name first, then the name that other tools use."""
    return AliasChoices(f"SPARSEWELL_{name}", name)


def renamed_alias(name: str, former: str) -> AliasChoices:
    """Return the alias of a renamed variable. Its former name is deprecated, and this version still reads it."""
    return AliasChoices(f"SPARSEWELL_{name}", f"SPARSEWELL_{former}")


def split_names(text: str) -> list[str]:
    """Return the names in a comma-separated setting."""
    return [name for part in text.split(",") if (name := part.strip())]


def _check_opensearch_url(urls: str) -> str:
    example = "http://127.0.0.1:19200, or several separated by commas"
    return ",".join(_check_address(url, ("http", "https"), example) for url in split_addresses(urls))


def _check_redis_url(url: str) -> str:
    # unix:// is not allowed because kombu, which sends the messages, does not support it.
    return _check_address(url, ("redis", "rediss"), "redis://127.0.0.1:16379/0")


def _check_address(url: str, schemes: tuple[str, ...], example: str) -> str:
    # The message never repeats the value: it may hold a password.
    advice = f"give an address such as {example}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        # urllib's message quotes what it takes for the port, which may be part of a password.
        reason = "its port is not a number from 1 to 65535" if "ort" in str(error) else "it cannot be read"
        raise ValueError(f"{reason}; {advice}") from None
    if parts.scheme not in schemes:
        raise ValueError(f"it does not begin with {' or '.join(f'{scheme}://' for scheme in schemes)}; {advice}")
    if not parts.hostname or "," in parts.hostname or any(character.isspace() for character in url):
        raise ValueError(f"it has no host; {advice}")
    if port == 0:
        raise ValueError(f"its port is not a number from 1 to 65535; {advice}")
    return url


OpenSearchUrl = Annotated[str, AfterValidator(_check_opensearch_url)]
RedisUrl = Annotated[str, AfterValidator(_check_redis_url)]


def split_addresses(urls: str) -> list[str]:
    """Split a list of addresses at commas. A password may contain a comma, so a scheme must follow it."""
    return re.split(r"\s*,\s*(?=https?://)", urls.strip())


def redact_addresses(urls: str) -> str:
    """Return one or several addresses without users, passwords and queries, all of which may be secret."""
    return ",".join(_redacted(url) for url in split_addresses(urls))


def _redacted(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(an address that cannot be read)"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def has_credentials(url: str) -> bool:
    """Return whether an address contains a user or a password."""
    return "@" in urlsplit(url).netloc


def format_http_address(host: str, port: int) -> str:
    """Return the address of an HTTP server, with brackets around an IPv6 host."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def full_redis_url(url: str, user: str | None, password: str | None, tls: TlsFiles) -> str:
    """Return `url` with user, password and TLS files added; what the address already contains stays.

    redis-py, kombu and Celery all read the URL, so they share every option. The certificate of a rediss:// address is
    checked unless `tls` or the address says otherwise (kombu alone would not check it).
    """
    parts = urlsplit(url)
    netloc = parts.netloc
    if password:
        netloc = f"{quote(user or '', safe='')}:{quote(password, safe='')}@{netloc}"
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme == "rediss":
        checked = "required" if tls.verify else "none"
        options = {"ssl_cert_reqs": checked, "ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
        if not tls.verify:
            options["ssl_check_hostname"] = "false"
        query = {name: str(value) for name, value in options.items() if value} | query
    return parts._replace(netloc=netloc, query=urlencode(query)).geturl()


def _local_opensearch(values: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{values.get('opensearch_port')}"


def _local_redis(values: dict[str, Any]) -> str:
    return f"redis://127.0.0.1:{values.get('redis_port')}/0"


class ConnectionSettings(EnvironmentSettings):
    """Settings of the connections to OpenSearch and Redis. Values that may be secret are left out of the repr."""

    # The default address is the local server's, so a changed local port changes it too. For port 0, only the stack that
    # starts the server knows the actual port and replaces the address.
    opensearch_port: int = Field(19200, ge=0, le=65535)
    redis_port: int = Field(16379, ge=0, le=65535)
    opensearch_url: OpenSearchUrl = Field(
        default_factory=_local_opensearch,
        validate_default=False,
        validation_alias=unprefixed_alias("OPENSEARCH_URL"),
        repr=False,
    )
    redis_url: RedisUrl = Field(
        default_factory=_local_redis, validate_default=False, validation_alias=unprefixed_alias("REDIS_URL"), repr=False
    )
    opensearch_pool: int = Field(32, ge=1)
    opensearch_timeout: float = Field(30.0, gt=0)

    opensearch_ca: Path | None = Field(None, description="certificates (PEM) of the authorities that sign OpenSearch's")
    opensearch_verify: bool = Field(True, description="whether OpenSearch's certificate is checked")
    opensearch_cert: Path | None = Field(None, description="client certificate (PEM), optionally with its key")
    opensearch_key: Path | None = Field(None, description="key of the client certificate (PEM)")
    opensearch_user: str | None = None
    opensearch_password: str | None = Field(None, repr=False)
    opensearch_password_file: Path | None = Field(None, description="read again when it changes")
    opensearch_aws_region: str | None = Field(
        None, pattern=r"^[a-z0-9-]+$", description="requests are signed for an Amazon OpenSearch Service domain there"
    )

    redis_ca: Path | None = Field(None, description="certificates (PEM) of the authorities that sign Redis'")
    redis_verify: bool = Field(True, description="whether Redis' certificate is checked")
    redis_cert: Path | None = Field(None, description="client certificate (PEM)")
    redis_key: Path | None = Field(None, description="key of the client certificate (PEM)")
    redis_user: str | None = None
    redis_password: str | None = Field(None, repr=False)
    redis_password_file: Path | None = Field(None, description="read when a process starts")

    @model_validator(mode="after")
    def _validate_connections(self) -> Self:
        for name, secure in (("opensearch", "https://"), ("redis", "rediss://")):
            self._check_user(name)
            self._check_tls(name, secure)
        if self.opensearch_password_file or self.opensearch_password:
            _require(bool(self.opensearch_user), "OPENSEARCH_PASSWORD has no OPENSEARCH_USER")
        if self.opensearch_aws_region:
            has_user = bool(self.opensearch_user) or any(map(has_credentials, split_addresses(self.opensearch_url)))
            _require(not has_user, "OPENSEARCH_AWS_REGION has requests signed: remove user and password")
        return self

    def _check_user(self, name: str) -> None:
        upper = name.upper()
        user, password, file = (getattr(self, f"{name}_{part}") for part in ("user", "password", "password_file"))
        _require(not (password and file), f"{upper}_PASSWORD and {upper}_PASSWORD_FILE are two passwords: keep one")
        _require(bool(password or file) or not user, f"{upper}_USER has no {upper}_PASSWORD or {upper}_PASSWORD_FILE")
        in_url = any(map(has_credentials, split_addresses(getattr(self, f"{name}_url"))))
        _require(not (in_url and (password or file)), f"{upper}_URL names a user already: remove one of the two")

    def _check_tls(self, name: str, secure: str) -> None:
        upper = name.upper()
        ca, cert, key = (getattr(self, f"{name}_{part}") for part in ("ca", "cert", "key"))
        _require(not key or bool(cert), f"{upper}_KEY has no {upper}_CERT")
        plain = [url for url in split_addresses(getattr(self, f"{name}_url")) if not url.startswith(secure)]
        _require(not ((ca or cert) and plain), f"{upper}_CA and {upper}_CERT need addresses that begin with {secure}")

    @property
    def opensearch_tls(self) -> TlsFiles:
        """Return the TLS files of connections to OpenSearch."""
        return TlsFiles(
            "OPENSEARCH", self.opensearch_ca, self.opensearch_cert, self.opensearch_key, self.opensearch_verify
        )

    @property
    def redis_address(self) -> str:
        """Return the address of Redis with all that its clients (redis-py, kombu, Celery) need. It is a secret."""
        tls = TlsFiles("REDIS", self.redis_ca, self.redis_cert, self.redis_key, self.redis_verify)
        file = self.redis_password_file
        password = SecretFile("REDIS_PASSWORD_FILE", file).text() if file else self.redis_password
        return full_redis_url(self.redis_url, self.redis_user, password, tls)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


class Settings(ConnectionSettings):
    """All settings with their defaults. Times are in seconds, sizes in bytes."""

    index_prefix: str = Field("sparsewell", pattern=r"^[a-z][a-z0-9]{0,31}$")

    api_host: str = "127.0.0.1"
    api_port: int = Field(8010, ge=0, le=65535)
    drain_seconds: float = Field(0.0, ge=0, description="time to keep answering after SIGTERM while /readyz fails")
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(None, ge=0, le=65535, description="port of each process's metrics; unset: none")
    log_format: Literal["text", "json"] = "text"
    log_requests: bool = False
    commit: str = Field("", pattern=r"^[0-9A-Za-z._-]{0,64}$", description="commit of the sources; set in the images")
    # Access control (docs/security.md). By default every caller on this machine has access, and no other.
    allowed_hosts: str = Field("", description="public host names of this service, by commas; `*`: any")
    access: Literal["auto", "open", "keys"] = Field(
        "auto", description="auto: `keys` if any are configured, else `open`, on loopback only"
    )
    admin_key_file: str = Field(
        "", description="file of keys with every right, one a line, to create the first keys with"
    )
    model_key_file: str = Field("", description="file of the key that the model process asks for")
    key_rate: float = Field(0.0, ge=0, description="default requests a second of a key; 0: no limit")
    key_burst: int = Field(0, ge=0, description="default burst of a key; 0: two seconds of requests")
    key_daily: int = Field(0, ge=0, description="default requests a day (UTC) of a key; 0: no limit")
    key_documents: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="default documents a second that a key may write; 0: no limit"
    )
    key_bytes: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="default bytes of documents a second of a key; 0: no limit"
    )
    oidc_issuer: str = Field("", pattern=r"^(https?://.+)?$", description="issuer of accepted tokens; empty: none")
    oidc_audience: str = Field("", description="audience that tokens must have; several by commas")
    oidc_algorithms: str = Field("RS256,ES256", description="accepted signature algorithms, by commas")
    oidc_leeway: float = Field(30.0, ge=0, le=300, description="allowed clock difference")
    oidc_scope_claim: str = Field("scope", description="claim with the scopes, a string or a list")
    oidc_scope_prefix: str = Field("sparsewell:", description="prefix of `search`, `ingest` and `admin` in it")
    oidc_indexes_claim: str = Field("", description="claim with index names or prefixes (`logs-*`); empty: all indexes")
    oidc_filter: str = Field("", description='filter in JSON, with {"claim": NAME} for the value of a claim')
    search_timeout: float = Field(5.0, gt=0, description="deadline of a search, including OpenSearch")

    # Defaults of a search request (docs/decisions/0151).
    prune: float = Field(0.2, ge=0, lt=1, description="query pieces below this share of the heaviest are left out")
    two_phase_threshold: float = Field(0.5, gt=0, le=1, description="heavy query pieces: this share of the heaviest")
    two_phase_window: int = Field(200, ge=1, le=10_000, description="documents per shard that light pieces score")

    # Queries may hold personal data, so they are only learned for the named indexes (docs/decisions/0179).
    learn_queries: str = Field("", description="indexes whose frequent queries are suggested, by commas; `*`: all")
    suggest_after: int = Field(3, ge=1, description="a query is suggested from this count on")
    max_learned_queries: int = Field(5000, ge=1, le=9999, description="learned queries kept per index")

    encoder: str = Field("projected-minilm-l6", description="name of shipped weights, or path of a model directory")
    more_encoders: str = Field("", description="further names or paths that the API serves, by commas")
    dense_encoders: str = Field("", description="directories with a dense.json, separated by commas")
    model_url: str = Field("", pattern=r"^(https?://.+)?$", description="address of the model process; empty: none")
    model_timeout: float = Field(0.5, gt=0, description="longest wait of a search for the dense encoder")
    cross_encoder_timeout: float = Field(1.0, gt=0, description="longest wait of a search for the cross-encoder")
    cross_encoder_weight: float = Field(0.7, ge=0, le=1, description="default share of the cross-encoder's scores")
    listwise_timeout: float = Field(2.5, gt=0, description="longest wait of a search for the listwise reranker")
    listwise_weight: float = Field(0.7, ge=0, le=1, description="default share of the listwise reranker's scores")
    # A decoder reads 20 passages in one prompt (RankGPT, arXiv 2304.09542); 100 are nine prompts, one after the other.
    listwise_top: int = Field(20, ge=1, description="default number of documents for the listwise reranker")
    model_host: str = "127.0.0.1"
    model_port: int = Field(8020, ge=0, le=65535)
    model_encoders: str = Field(
        "bge-small-en-v1.5-int8", description="dense encoders that the model process holds, separated by commas"
    )
    cross_encoder: str = Field("", description="cross-encoder of the model process: a directory, or a hub's name")
    listwise_reranker: str = Field("", description="decoder that orders passages: a directory, or a hub's name")
    listwise_method: Literal["permutation", "attention"] = Field(
        "permutation", description="the decoder writes the order, or its attention scores (docs/decisions/0270)"
    )
    listwise_layer: int | None = Field(None, ge=0, description="layer whose attention scores, from 0")
    chapter_model: str = Field(
        "podtile-smollm2", description="generator of the chapter engine `podtile`: shipped, a directory, a hub's name"
    )
    max_rerank: int = Field(200, ge=1, description="documents that a search may rerank")
    shards: int = Field(1, ge=1)
    replicas: int = Field(0, ge=0)
    refresh_interval: str = "1s"

    # Limits of each connection to the API and the model process, so that idle clients do not hold connections.
    head_seconds: float = Field(10.0, gt=0, description="time for the head of a request to arrive")
    stall_seconds: float = Field(60.0, gt=0, description="time that an answer waits for its reader")
    idle_seconds: int = Field(75, ge=1, description="time between two requests of a connection")
    max_head_bytes: int = Field(65_536, ge=1024, description="address and headers of a request")
    max_connections: int = Field(10_000, ge=1, description="connections of one process; 64 more for probes")

    # Limits. An error names the limit, so that its reader knows which setting to raise.
    max_body_bytes: int = Field(32 * 1024**2, gt=0, description="a JSON array of documents, buffered")
    max_stream_bytes: int = Field(1024**3, gt=0, description="an NDJSON stream, never buffered whole")
    max_request_documents: int = Field(200_000, gt=0, description="documents of one request, accepted and rejected")
    max_document_bytes: int = Field(1024**2, gt=0, description="one document as JSON, or the words of a talk")
    max_talk_bytes: int = Field(8 * 1024**2, gt=0, description="one document that is talk, as JSON")
    max_query_characters: int = Field(4096, gt=0)
    # Lucene's default limit of 1,024 clauses also covers the lexical query, where repeated words count.
    max_query_pieces: int = Field(1000, gt=0, le=1024)
    max_size: int = Field(100, gt=0)
    max_candidates: int = Field(1000, gt=0)
    # OpenSearch's own limit, index.max_rescore_window, is 10,000.
    max_two_phase_window: int = Field(10_000, gt=0, le=10_000)
    # index.max_result_window is 10,000, and skipped results are ranked too.
    max_offset: int = Field(1000, gt=0, le=9_999, description="`offset` and `size` together")
    max_indexes: int = Field(20, ge=1, description="indexes of one search")
    max_batch: int = Field(100, ge=1, description="searches of one request")
    cursor_seconds: float = Field(120.0, gt=0, le=86_400, description="how long a search waits for its next page")
    # OpenSearch allows 300 points in time a node (search.max_open_pit_context), and exports need some of them.
    max_points_in_time: int = Field(
        200,
        ge=1,
        validation_alias=renamed_alias("MAX_POINTS_IN_TIME", "MAX_SNAPSHOTS"),
        description="shards held by search cursors of one API process",
    )
    max_context_turns: int = Field(10, gt=0, description="earlier turns of a conversation")
    max_feedback_documents: int = Field(20, gt=0, description="feedback documents; `like` and `unlike` together")
    max_added_pieces: int = Field(100, gt=0, le=1024, description="pieces that feedback or context adds to a query")
    max_facets: int = Field(20, ge=1, le=100, description="facets of one search")
    max_facet_values: int = Field(1000, ge=1, le=10_000, description="values, or stretches of time, of one facet")
    max_filter_depth: int = Field(8, ge=1, le=50)
    # Each is a clause beside those of the query. OpenSearch allows 1,024 in all.
    max_filter_conditions: int = Field(100, ge=1, le=500)
    max_filter_values: int = Field(1000, ge=1, le=65_536, description="values that the lists of a filter name together")

    # Backpressure. A request beyond one of these limits is refused with 429 before anything of it is accepted.
    max_ingest_requests: int = Field(24, ge=1, description="concurrent requests with documents of one API process")
    max_ingest_bytes: int = Field(128 * 1024**2, gt=0, description="bodies in memory of one API process")
    max_pending_documents: int = Field(1_000_000, ge=1, description="documents that wait to be encoded, all indexes")
    max_queue_messages: int = Field(100_000, ge=1, description="messages that wait in an encoder's queue")
    body_timeout: float = Field(30.0, gt=0, description="time for each MiB of a body of documents to arrive")
    idempotency_hours: float = Field(24.0, gt=0, description="how long an Idempotency-Key is remembered, in hours")

    journal_bytes: int = Field(4 * 1024**2, gt=0, description="raw documents per bulk request")
    message_documents: int = Field(64, gt=0, description="document ids per queue message")
    lease_seconds: float = Field(
        120.0, gt=0, description="a pending document is enqueued again after this long, once its queue has passed it"
    )
    max_attempts: int = Field(3, ge=1)
    sweep_interval: float = Field(10.0, gt=0)
    tombstone_days: float = Field(7.0, gt=0, description="how long a tombstone guards against late writes")
    job_days: float = Field(30.0, gt=0, description="how long records of jobs are kept")

    backup_repository: str = Field(
        "sparsewell", pattern=r'^[^\s,\\/*?"<>|#]+$', description="OpenSearch's snapshot repository for backups"
    )
    backup_location: str = Field("", description="directory on the nodes in which a missing repository is created")

    worker_concurrency: int = Field(0, ge=0, description="worker processes; 0: one per core")
    worker_threads: int = Field(1, ge=1, description="threads of an ONNX session")
    batch_pieces: int | None = Field(
        None, gt=0, description="padded pieces of one run of the model; unset: the encoder's optimum"
    )

    @property
    def document_limits(self) -> DocumentLimits:
        """Return the limits of documents, for their parsers."""
        return DocumentLimits(self.max_document_bytes, self.max_talk_bytes)

    def model_post_init(self, _context: object) -> None:
        if self.job_days * 24 < self.idempotency_hours:
            raise ValueError(
                "SPARSEWELL_JOB_DAYS must not be shorter than SPARSEWELL_IDEMPOTENCY_HOURS: keys are stored with jobs"
            )
        if self.listwise_layer is not None and self.listwise_method != "attention":
            raise ValueError("SPARSEWELL_LISTWISE_LAYER needs SPARSEWELL_LISTWISE_METHOD=attention")
