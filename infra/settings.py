"""Settings of what runs on this machine: where things are kept, which ports are used, which Java is taken."""

from pathlib import Path

from pydantic import Field

from services.directories import DirectorySettings
from services.settings import OpenSearchUrl, RedisUrl, unprefixed_alias


class LocalSettings(DirectorySettings):
    """Every knob of the local node, Redis and stack, read from the environment (prefix `SPARSEWELL_`).

    A given `opensearch_url` or `redis_url` is somebody's server: then nothing is started in its place. Times are in
    seconds; `opensearch_heap` is a JVM size such as `512m`.
    """

    run_as: str = Field("nobody", description="the user of OpenSearch and Redis when we are root")

    opensearch_url: OpenSearchUrl | None = Field(None, validation_alias=unprefixed_alias("OPENSEARCH_URL"))
    opensearch_home: Path | None = Field(None, validation_alias=unprefixed_alias("OPENSEARCH_HOME"))
    opensearch_version: str = Field("3.6.0", pattern=r"^\d+\.\d+\.\d+$")
    opensearch_port: int = Field(19200, ge=0, le=65535, description="0: any free port")
    opensearch_transport_port: int = Field(0, ge=0, le=65535, description="0: any free port")
    opensearch_heap: str = Field("1g", pattern=r"^\d+[mg]$")
    opensearch_data_dir: Path | None = None
    opensearch_cluster_name: str = Field("sparsewell", pattern=r"^[A-Za-z0-9_-]+$")
    java_home: Path | None = None

    redis_url: RedisUrl | None = Field(None, validation_alias=unprefixed_alias("REDIS_URL"))
    redis_port: int = Field(16379, ge=0, le=65535, description="0: any free port")
    redis_data_dir: Path | None = None

    start_timeout: float = Field(300.0, gt=0, description="until a started part must be ready")
    stop_timeout: float = Field(30.0, gt=0, description="until a part that does not stop by itself is killed")
