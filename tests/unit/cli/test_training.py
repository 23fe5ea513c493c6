"""Disk errors become one line; other errors do not change."""

import errno

import pytest

from models.training.storage import disk_failures
from services.errors import ConfigurationError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/curve.jsonl"), "out/curve.jsonl: No space left"),
        (FileExistsError(errno.EEXIST, "File exists", "copy"), "copy: File exists"),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), "unexpected pos"),
        (ValueError("Error while serializing: I/O error: File too large (os error 27)"), "File too large"),
    ],
)
def test_an_error_of_the_disk_is_one_line(error: Exception, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught, disk_failures():
        raise error
    assert caught.value.code == "unwritable_directory"


@pytest.mark.parametrize("error", [OSError("no such model"), RuntimeError("shapes differ")])
def test_other_errors_are_not_blamed_on_the_disk(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), disk_failures():
        raise error
