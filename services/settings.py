"""Settings of every process, read from the environment (prefix `SPARSEWELL_`) when a factory asks, never at import."""

from typing import Literal

from pydantic import Field

from services.connections import ConnectionSettings
from services.document_limits import Limits


class Settings(ConnectionSettings):
    """Every knob with its default. Times are in seconds, sizes in bytes."""

    index_prefix: str = Field("sparsewell", pattern=r"^[a-z][a-z0-9]{0,31}$")

    api_host: str = "127.0.0.1"
    api_port: int = Field(8010, ge=0, le=65535)
    drain_seconds: float = Field(0.0, ge=0, description="answers go on so long after SIGTERM, while /readyz says no")
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(None, ge=0, le=65535, description="of each process's metrics; unset: none")
    log_format: Literal["text", "json"] = "text"
    log_requests: bool = False
    commit: str = Field("", pattern=r"^[0-9A-Za-z._-]{0,64}$", description="of the sources; the images say it")
    # Who may ask (docs/security.md). Where nothing is said, everybody on this machine and nobody else.
    access: Literal["auto", "open", "keys"] = Field(
        "auto", description="auto: keys where any are configured, else open, on loopback alone"
    )
    admin_key_file: str = Field(
        "", description="file of a key with every right, one a line: to make the first keys with"
    )
    model_key_file: str = Field("", description="file of the key that the model process asks for")
    key_rate: float = Field(0.0, ge=0, description="requests a second of a key that says nothing of its own; 0: any")
    key_burst: int = Field(0, ge=0, description="and at once; 0: two seconds' worth")
    key_daily: int = Field(0, ge=0, description="and a day, UTC; 0: any")
    oidc_issuer: str = Field("", pattern=r"^(https?://.+)?$", description="whose tokens are keys, too; empty: nobody's")
    oidc_audience: str = Field("", description="whom its tokens must be made for, this service; several by commas")
    oidc_algorithms: str = Field("RS256,ES256", description="signatures that are taken, by commas")
    oidc_leeway: float = Field(30.0, ge=0, le=300, description="by how much clocks may differ")
    oidc_scope_claim: str = Field("scope", description="claim that names scopes, as a text or a list")
    oidc_scope_prefix: str = Field("sparsewell:", description="before `search`, `ingest` and `admin` there")
    oidc_indexes_claim: str = Field(
        "", description="claim that names indexes, or how they begin (`logs-*`); empty: all"
    )
    oidc_filter: str = Field("", description='in JSON, with {"claim": NAME} where a claim of the token stands')
    search_timeout: float = Field(5.0, gt=0, description="deadline of a search, the engine's share included")

    # What a search does unless its request says otherwise (docs/decisions/0151, 0152).
    prune: float = Field(0.2, ge=0, lt=1, description="query pieces below this share of the heaviest are left out")
    two_phase_threshold: float = Field(0.5, gt=0, le=1, description="heavy query pieces: this share of the heaviest")
    two_phase_window: int = Field(200, ge=1, le=10_000, description="documents of a shard that light pieces score")

    # What people ask can be about themselves: nothing is kept of it unless indexes are named (docs/decisions/0179).
    learn_queries: str = Field("", description="indexes whose frequent queries are suggested, by commas; `*`: all")
    suggest_after: int = Field(3, ge=1, description="a query is suggested once it was asked so often")
    max_learned_queries: int = Field(5000, ge=1, le=9999, description="queries that are kept of an index")

    encoder: str = Field("bootstrap-minilm-l6", description="name of shipped weights, or path of a model directory")
    more_encoders: str = Field("", description="further names or paths, separated by commas, that the API serves too")
    dense_encoders: str = Field("", description="directories with a dense.json, separated by commas")
    model_url: str = Field("", pattern=r"^(https?://.+)?$", description="the model process; empty: there is none")
    model_timeout: float = Field(0.5, gt=0, description="what a search waits for the model process at most, in seconds")
    model_host: str = "127.0.0.1"
    model_port: int = Field(8020, ge=0, le=65535)
    model_encoders: str = Field(
        "bge-small-en-v1.5-int8", description="dense encoders that the model process holds, separated by commas"
    )
    cross_encoder: str = Field("", description="cross-encoder of the model process: a directory, or a hub's name")
    listwise_reranker: str = Field("", description="decoder that orders passages: a directory, or a hub's name")
    chapter_model: str = Field(
        "podtile-smollm2", description="generator of the chapter engine `podtile`: shipped, a directory, a hub's name"
    )
    max_rerank: int = Field(200, ge=1, description="documents that a search may rerank")
    shards: int = Field(1, ge=1)
    replicas: int = Field(0, ge=0)
    refresh_interval: str = "1s"

    # Of each connection to the API and the model process, so that none holds one for nothing.
    head_seconds: float = Field(10.0, gt=0, description="for the head of a request to arrive")
    stall_seconds: float = Field(60.0, gt=0, description="that an answer waits for a client that does not read it")
    idle_seconds: int = Field(75, ge=1, description="that a connection is kept between two requests")
    max_head_bytes: int = Field(65_536, ge=1024, description="address and headers of a request")
    max_connections: int = Field(10_000, ge=1, description="at once, of one process; beside them 64 of probes")

    # Limits. A refusal names the limit, so that the reader knows which of these to raise.
    max_body_bytes: int = Field(32 * 1024**2, gt=0, description="a JSON array of documents, buffered")
    max_stream_bytes: int = Field(1024**3, gt=0, description="an NDJSON stream, never buffered whole")
    max_document_bytes: int = Field(1024**2, gt=0, description="one document as JSON; of talk, its words")
    max_talk_bytes: int = Field(8 * 1024**2, gt=0, description="one document that is talk, as JSON")
    max_query_characters: int = Field(4096, gt=0)
    # Lucene's default of 1,024 clauses holds for the lexical query too, and it counts repeated words.
    max_query_pieces: int = Field(1000, gt=0, le=1024)
    max_size: int = Field(100, gt=0)
    max_candidates: int = Field(1000, gt=0)
    # OpenSearch's own limit, index.max_rescore_window, is 10,000.
    max_two_phase_window: int = Field(10_000, gt=0, le=10_000)
    # index.max_result_window is 10,000, and what is passed over is ranked all the same.
    max_offset: int = Field(1000, gt=0, le=9_999, description="`offset` and `size` together")
    max_indexes: int = Field(20, ge=1, description="indexes of one search")
    max_batch: int = Field(100, ge=1, description="searches of one request")
    cursor_seconds: float = Field(120.0, gt=0, le=86_400, description="how long a search waits for its next page")
    # OpenSearch takes 300 a node (search.max_open_pit_context), which exports need as well.
    max_snapshots: int = Field(200, ge=1, description="shards that searches with a cursor hold, of one API process")
    max_context_turns: int = Field(10, gt=0, description="earlier turns of a conversation")
    max_feedback_documents: int = Field(20, gt=0, description="of a first round; also `like` and `unlike` together")
    max_added_pieces: int = Field(100, gt=0, le=1024, description="that feedback or context adds to a query")
    max_facets: int = Field(20, ge=1, le=100, description="of one search")
    max_facet_values: int = Field(1000, ge=1, le=10_000, description="values, or stretches of time, of one facet")
    max_filter_depth: int = Field(8, ge=1, le=50)
    # Each is a clause beside those of the query, of which OpenSearch takes 1,024 together.
    max_filter_conditions: int = Field(100, ge=1, le=500)
    max_filter_values: int = Field(1000, ge=1, le=65_536, description="values that the lists of a filter name together")

    # Back-pressure. What is over one of these is refused with 429 before anything is accepted.
    max_ingest_requests: int = Field(24, ge=1, description="requests with documents at once, of one API process")
    max_ingest_bytes: int = Field(128 * 1024**2, gt=0, description="bodies in memory at once, of one API process")
    max_pending_documents: int = Field(1_000_000, ge=1, description="documents that wait to be encoded, all indexes")
    max_queue_messages: int = Field(100_000, ge=1, description="messages that wait in an encoder's queue")
    body_timeout: float = Field(30.0, gt=0, description="for each MiB of a body of documents to arrive")
    idempotency_hours: float = Field(24.0, gt=0, description="how long an Idempotency-Key is remembered, in hours")

    journal_bytes: int = Field(4 * 1024**2, gt=0, description="raw documents per bulk request")
    message_documents: int = Field(64, gt=0, description="document ids per queue message")
    lease_seconds: float = Field(120.0, gt=0, description="a pending document is enqueued again after this long")
    max_attempts: int = Field(3, ge=1)
    sweep_interval: float = Field(10.0, gt=0)
    tombstone_days: float = Field(7.0, gt=0, description="a delete holds against late writes for so long")
    job_days: float = Field(30.0, gt=0, description="records of ingestions are kept for so long")

    backup_repository: str = Field(
        "sparsewell", pattern=r'^[^\s,\\/*?"<>|#]+$', description="snapshot repository of OpenSearch's for backups"
    )
    backup_location: str = Field("", description="directory of the nodes' where it is made if it is not there")

    worker_concurrency: int = Field(0, ge=0, description="worker processes; 0: one a core")
    worker_threads: int = Field(1, ge=1, description="threads of an ONNX session")
    batch_pieces: int | None = Field(
        None, gt=0, description="padded pieces of one run of the model; unset: what the encoder finds best"
    )

    @property
    def document_limits(self) -> Limits:
        """What a document may have, for those who parse it."""
        return Limits(self.max_document_bytes, self.max_talk_bytes)

    def model_post_init(self, _context: object) -> None:
        if self.job_days * 24 < self.idempotency_hours:
            raise ValueError(
                "SPARSEWELL_JOB_DAYS must not be shorter than SPARSEWELL_IDEMPOTENCY_HOURS, which are kept with jobs"
            )
