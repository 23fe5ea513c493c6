"""Messages on the bulk queue: task names, bodies and their JSON schema. The version is part of the name.

Both are Celery tasks (message protocol 2, JSON) on Redis lists, so a producer is any Celery client or anything that
can write such a message; docs/queue.md shows both.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from services.versions import LARGEST_CLIENT_VERSION

ENCODE_TASK: Final = "sparsewell.encode.v1"
INGEST_TASK: Final = "sparsewell.ingest.v1"
INGEST_QUEUE: Final = "sparsewell.ingest"
MAX_MESSAGE_DOCUMENTS: Final = 1000


def encode_queue(encoder: str) -> str:
    """The queue of the workers that hold this encoder; encoders do not wait behind each other."""
    return f"sparsewell.encode.{encoder}"


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EncodeMessage(_Message):
    """Documents that are in the journal and wait for their vectors. Sent by the API, the ingest task, the sweeper."""

    contract: Literal["sparsewell.encode.v1"] = ENCODE_TASK
    index: str = Field(description="name of the index, as in the REST paths")
    ids: tuple[str, ...] = Field(min_length=1, max_length=MAX_MESSAGE_DOCUMENTS)

    @field_validator("ids")
    @classmethod
    def _are_text(cls, ids: tuple[str, ...]) -> tuple[str, ...]:
        "".join(ids).encode()  # half a surrogate pair raises a ValueError
        return ids

    generation: int | None = Field(None, ge=1, description="generation of the index. None: the one that is searched")


def encode_messages(index: str, ids: Sequence[str], size: int, generation: int) -> list[EncodeMessage]:
    """Messages of at most `size` documents each, in the order of the ids."""
    return [
        EncodeMessage(index=index, ids=tuple(ids[at : at + size]), generation=generation)
        for at in range(0, len(ids), size)
    ]


class IngestMessage(_Message):
    """Raw documents from a producer. They are durable once a worker has written them to the journal, not before.

    What is refused is recorded in the job, each document with its reason.
    """

    contract: Literal["sparsewell.ingest.v1"] = INGEST_TASK
    index: str = Field(description="name of an index that exists")
    job: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="job that the documents count for; several messages may share one. None: a job per message",
    )
    sent_at: int | None = Field(
        None,
        ge=0,
        le=LARGEST_CLIENT_VERSION,
        description="microseconds since 1970, from the producer's clock; the version of documents that bring none, so "
        "that a message that is delivered twice stores the same thing twice. None: the time at which a worker took it",
    )
    offset: int = Field(
        0, ge=0, description="documents of the job in earlier messages; refusals are reported by place in the job"
    )
    documents: tuple[dict[str, Any], ...] = Field(
        min_length=1, max_length=MAX_MESSAGE_DOCUMENTS, description="as in POST /v1/indexes/{index}/documents"
    )


CONTRACTS: Final[dict[str, type[BaseModel]]] = {ENCODE_TASK: EncodeMessage, INGEST_TASK: IngestMessage}


def schemas() -> dict[str, dict[str, Any]]:
    """JSON schema of each message by task name, as committed under docs/contracts/."""
    return {name: model.model_json_schema() for name, model in CONTRACTS.items()}


def publish(directory: Path) -> None:
    """Writes the schemas, one file a message."""
    for name, schema in schemas().items():
        (directory / f"{name}.schema.json").write_text(json.dumps(schema, indent=2) + "\n")


if __name__ == "__main__":
    publish(Path(sys.argv[1]))
