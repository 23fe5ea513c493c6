"""What an image may hold by its licences: `python -m infra.docker.licences [--for-gpus] LIST`, with exit status 1 where
something is in the way.

LIST is what `pip-licenses --from=all --format=json` says of the image's environment. An allow list, because a licence
that nobody has looked at is no better than one that was refused. None of those below asks for the source of what it is
linked with; the Mozilla licence asks for that of its own files, which is in the packages.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ALLOWED = frozenset(
    {
        "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
        "CNRI-Python", "ISC", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0", "Zlib",
    }
)  # fmt: skip
# The words of older packages for them.
NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "New BSD": "BSD-3-Clause",
    "Python Software Foundation License": "PSF-2.0",
}
# What is in the image for GPUs all the same, by how the names of its packages begin, and why.
REASONS = {
    "nvidia-": "NVIDIA's licence allows to pass its libraries on within an application that needs them, as torch is",
    "cuda-toolkit": "names no licence, and has no file: it asks for NVIDIA's libraries",
}
_NONE = ("", "UNKNOWN")


def licences(package: Mapping[str, str]) -> set[str]:
    """The licences of a package: of its expression, else its classifiers, else its metadata.

    All of them must be allowed, also where one could choose: nobody has to ask then what was chosen.
    """
    for member in ("License-Expression", "License-Classifier", "License-Metadata"):
        text = package.get(member, "")
        if text not in _NONE:
            parts = re.split(r"; | AND | OR |[()]" if member == "License-Expression" else r"; | AND ", text)
            return {NAMES.get(part.strip(), part.strip()) for part in parts if part.strip()}
    return {"none that it names"}


def refused(packages: Iterable[Mapping[str, str]], reasons: Iterable[str] = ()) -> list[str]:
    """A line for each package that may not be in an image; `reasons`: how those begin that have one."""
    return [
        f"{package['Name']} {package['Version']}: {', '.join(sorted(wrong))}"
        for package in packages
        if (wrong := licences(package) - ALLOWED) and not package["Name"].startswith(tuple(reasons))
    ]


def main(arguments: list[str]) -> int:
    """Reads the list that the last argument names; the exit status for `sys.exit`."""
    packages = json.loads(Path(arguments[-1]).read_text())
    for line in (lines := refused(packages, REASONS if "--for-gpus" in arguments else ())):
        print(f"not allowed in an image: {line}", file=sys.stderr)
    print(f"{len(packages)} packages, {len(lines)} not allowed.")
    return 1 if lines or not packages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
