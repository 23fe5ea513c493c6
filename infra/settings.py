"""Settings of the local node, the local Redis and the local stack: directories, ports, Java."""

from pathlib import Path

from pydantic import Field

from services.directories import DirectorySettings
from services.settings import OpenSearchUrl, RedisUrl, unprefixed_alias


class LocalSettings(DirectorySettings):
    """Settings of the servers on this machine, read from the environment (prefix `SPARSEWELL_`).

    `opensearch_url` and `redis_url` name existing servers; none is started in their place. Times are in seconds;
    `opensearch_heap` is a JVM size such as `512m`.
    """

    run_as: str = Field("nobody", description="the user of OpenSearch and Redis when sparsewell runs as root")

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

    start_timeout: float = Field(300.0, gt=0, description="until a started process must be ready")
    stop_timeout: float = Field(30.0, gt=0, description="until a process that does not stop is killed")
