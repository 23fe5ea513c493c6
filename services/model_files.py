"""Which files a model directory may hold: data alone. A pickle runs code when it is read, so none may lie there."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

from services.errors import ConfigurationError

_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack"})
_CODE = frozenset({".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".ps1", ".jar", ".class"})
# Protocols 2 to 5 open with PROTO and the protocol's number; 0 and 1 have no mark, and nothing here reads a file of
# an unknown kind.
_PICKLE_HEADS = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_PROGRAM_HEADS = (b"\x7fELF", b"MZ", b"#!", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")


def refusal(path: Path) -> str | None:
    """Why a file may not lie in a model directory, or None: told by its name, then by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in _CODE:
        return "it is code, and no code of a model is ever run"
    if suffix in _PICKLES:
        return "it may be a pickle, which runs code when it is read; only safetensors and ONNX are read"
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(_PICKLE_HEADS):
        return "it is a pickle, which runs code when it is read; only safetensors and ONNX are read"
    if head.startswith(_PROGRAM_HEADS):
        return "it is a program, and no code of a model is ever run"
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        return "it is an archive, as PyTorch's pickles are; only safetensors and ONNX are read"
    return None


def refused_files(directory: Path) -> Iterator[ConfigurationError]:
    """An error (`refused_file`) for each file below a directory that may not lie there."""
    for path in sorted(directory.rglob("*")):
        try:
            reason = refusal(path) if path.is_file() else None
        except OSError as error:
            reason = f"it cannot be read ({error.strerror})"
        if reason is not None:
            yield ConfigurationError("refused_file", f"{path}: {reason}. Remove it.")
