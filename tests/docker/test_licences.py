"""Every package in an image has a reviewed licence."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.licences import EXEMPTION_REASONS, find_refused_packages, main, package_licences

REPOSITORY = Path(__file__).resolve().parents[2]


def names(lock: str) -> set[str]:
    lines = (REPOSITORY / "requirements" / f"{lock}.txt").read_text().splitlines()
    return {line.split("==")[0] for line in lines if "==" in line}


def package(**members: str) -> dict[str, str]:
    return {"Name": "one", "Version": "1"} | {key.replace("_", "-"): value for key, value in members.items()}


@pytest.fixture(scope="module")
def installed() -> dict[str, dict[str, str]]:
    command = [Path(sys.executable).parent / "pip-licenses", "--from=all", "--format=json", "--with-system"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {re.sub(r"[-_.]+", "-", one["Name"]).lower(): one for one in listed}


def test_what_the_images_install_is_allowed(installed: dict[str, dict[str, str]]) -> None:
    """Check the packages that are installed here: all except those of other systems and Python versions."""
    wanted = names("base") | names("worker")
    found = [one for name, one in installed.items() if name in wanted]
    assert len(found) > 0.9 * len(wanted)
    assert find_refused_packages(found) == []


def test_what_the_image_for_gpus_installs_is_allowed_or_has_a_reason(installed: dict[str, dict[str, str]]) -> None:
    """Check the packages that are installed here. This covers all of them if torch is installed."""
    found = [one for name, one in installed.items() if name in names("gpu")]
    assert find_refused_packages(found, EXEMPTION_REASONS) == []
    assert all(any(name.startswith(reason) for name in names("gpu")) for reason in EXEMPTION_REASONS)


def test_a_reason_is_for_the_image_for_gpus_alone(tmp_path: Path) -> None:
    file = tmp_path / "licences.json"
    file.write_text(
        json.dumps([package(License_Expression="LicenseRef-NVIDIA-Proprietary") | {"Name": "nvidia-nccl-cu13"}])
    )
    assert (main([str(file)]), main(["--for-gpus", str(file)])) == (1, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        package(License_Expression="GPL-3.0-only"),
        package(License_Expression="MIT AND AGPL-3.0-or-later"),
        package(License_Expression="MIT OR GPL-2.0-only"),
        package(License_Classifier="GNU Lesser General Public License v3 (LGPLv3)"),
        package(License_Metadata="Proprietary"),
        package(License_Metadata="UNKNOWN"),
        package(),
    ],
)
def test_a_licence_that_is_not_on_the_list_is_refused(wrong: dict[str, str], tmp_path: Path) -> None:
    assert find_refused_packages([package(License_Expression="MIT"), wrong])
    file = tmp_path / "licences.json"
    file.write_text(json.dumps([wrong]))
    assert main([str(file)]) == 1


def test_an_empty_list_is_no_good_one(tmp_path: Path) -> None:
    file = tmp_path / "licences.json"
    file.write_text("[]")
    assert main([str(file)]) == 1


def test_an_expression_says_more_than_a_classifier() -> None:
    both = package(License_Expression="MPL-2.0 AND (Apache-2.0 OR MIT)", License_Classifier="Other/Proprietary License")
    assert package_licences(both) == {"MPL-2.0", "Apache-2.0", "MIT"}
