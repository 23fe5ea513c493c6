"""Check of an image's licences against an allow list.

    python -m infra.licences [--for-gpus] LIST

LIST is the output of `pip-licenses --from=all --format=json` for the image's environment. The exit status is 1 when a
package has a licence that is not allowed (docs/decisions/0217). The option `--allow-only` of pip-licenses compares
whole texts: each expression such as `MPL-2.0 AND MIT` would need an entry, changed with every new version.

No allowed licence asks for the source of software that is linked with the package. The Mozilla licence asks for the
source of the package's own files, which the package contains.
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
# Names of these licences in the metadata of older packages.
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
# Exemptions of the image for GPUs: the prefix of the package names, and the reason.
EXEMPTION_REASONS = {
    "nvidia-": "NVIDIA's licence allows an application that needs its libraries, such as torch, to redistribute them",
    "cuda-toolkit": "an empty package without a licence: it only depends on NVIDIA's libraries",
}
_NO_LICENCE = ("", "UNKNOWN")


def package_licences(package: Mapping[str, str]) -> set[str]:
    """Return the licences of a package from its expression, else from its classifiers, else from its metadata.

    All alternatives (`OR`) are returned and must be allowed, so no choice has to be recorded.
    """
    for member in ("License-Expression", "License-Classifier", "License-Metadata"):
        text = package.get(member, "")
        if text not in _NO_LICENCE:
            parts = re.split(r"; | AND | OR |[()]" if member == "License-Expression" else r"; | AND ", text)
            return {SPDX_IDENTIFIERS.get(part.strip(), part.strip()) for part in parts if part.strip()}
    return {"none that it names"}


def find_refused_packages(packages: Iterable[Mapping[str, str]], exempt_prefixes: Iterable[str] = ()) -> list[str]:
    """Return a line for each package with a refused licence.

    Packages whose names start with one of `exempt_prefixes` are left out.
    """
    return [
        f"{package['Name']} {package['Version']}: {', '.join(sorted(wrong))}"
        for package in packages
        if (wrong := package_licences(package) - ALLOWED_LICENCES)
        and not package["Name"].startswith(tuple(exempt_prefixes))
    ]


def main(arguments: list[str]) -> int:
    """Check the list that the last argument names; return the exit status."""
    packages = json.loads(Path(arguments[-1]).read_text())
    refused = find_refused_packages(packages, EXEMPTION_REASONS if "--for-gpus" in arguments else ())
    for line in refused:
        print(f"not allowed in an image: {line}", file=sys.stderr)
    print(f"{len(packages)} packages, {len(refused)} not allowed.")
    return 1 if refused or not packages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
