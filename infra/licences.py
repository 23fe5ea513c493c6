"""Check of an image's licences against an allow list: `python -m infra.licences [--for-gpus] LIST`.

LIST is the output of `pip-licenses --from=all --format=json` for the image's environment. The exit status is 1 when a
package has a licence that is not on the list. pip-licenses has a check of its own (`--allow-only`), but it compares
whole texts: each expression such as `MPL-2.0 AND MIT` would be an entry, to be changed with every new version.

No licence on the list asks for the source of software that is linked with the package. The Mozilla licence asks for
the source of the package's own files, which the package contains.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ALLOWED_LICENCES = frozenset(
    {
        "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
        "CNRI-Python", "ISC", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0", "Zlib",
    }
)  # fmt: skip
# Names that older packages use for these licences.
SPDX_IDENTIFIERS = {
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
# Packages that the image for GPUs holds with other licences: the beginning of their names, and why.
EXEMPTION_REASONS = {
    "nvidia-": "NVIDIA's licence allows to pass its libraries on within an application that needs them, as torch is",
    "cuda-toolkit": "names no licence, and has no file: it asks for NVIDIA's libraries",
}
_NONE = ("", "UNKNOWN")


def package_licences(package: Mapping[str, str]) -> set[str]:
    """Return the licences of a package: of its expression, else of its classifiers, else of its metadata.

    Alternatives (`OR`) are all returned and must all be allowed, so no choice has to be recorded.
    """
    for member in ("License-Expression", "License-Classifier", "License-Metadata"):
        text = package.get(member, "")
        if text not in _NONE:
            parts = re.split(r"; | AND | OR |[()]" if member == "License-Expression" else r"; | AND ", text)
            return {SPDX_IDENTIFIERS.get(part.strip(), part.strip()) for part in parts if part.strip()}
    return {"none that it names"}


def find_refused_packages(packages: Iterable[Mapping[str, str]], reasons: Iterable[str] = ()) -> list[str]:
    """Return a line for each package that an image may not hold, except names that begin with one of `reasons`."""
    return [
        f"{package['Name']} {package['Version']}: {', '.join(sorted(wrong))}"
        for package in packages
        if (wrong := package_licences(package) - ALLOWED_LICENCES) and not package["Name"].startswith(tuple(reasons))
    ]


def main(arguments: list[str]) -> int:
    """Check the list that the last argument names; return the exit status."""
    packages = json.loads(Path(arguments[-1]).read_text())
    for line in (lines := find_refused_packages(packages, EXEMPTION_REASONS if "--for-gpus" in arguments else ())):
        print(f"not allowed in an image: {line}", file=sys.stderr)
    print(f"{len(packages)} packages, {len(lines)} not allowed.")
    return 1 if lines or not packages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
