"""The OpenSearch distribution: pinned version, Java releases, and modules of the 2.x line."""

from xml.etree import ElementTree

import pytest

from infra.local_servers import LocalSettings
from infra.opensearch.distribution import (
    DISTRIBUTION_POM,
    PLUGIN_MODULES,
    Distribution,
    minimum_java_release,
    newest_java_release,
    render_descriptor,
)


def test_the_pom_and_the_settings_pin_the_same_version() -> None:
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    pom = ElementTree.parse(DISTRIBUTION_POM)  # noqa: S314 - our own file
    pinned = {
        name: pom.findtext(f"m:properties/m:opensearch.{name}", namespaces=space) for name in ("group", "version")
    }
    default = LocalSettings.model_fields["opensearch_version"].default
    assert pinned == {"group": Distribution(default).group, "version": default}


@pytest.mark.parametrize(("version", "java"), [("3.6.0", 21), ("2.19.4", 11), ("10.0.0", 21)])
def test_oldest_java_of_a_release(version: str, java: int) -> None:
    assert minimum_java_release(version) == Distribution(version).minimum_java == java


def test_the_2_x_line_needs_a_java_with_the_security_manager() -> None:
    assert (newest_java_release("2.19.4"), newest_java_release("3.6.0")) == (23, None)
    assert Distribution("2.19.4", security=True).name == "opensearch-2.19.4-security"


def test_descriptors_of_added_modules_name_what_they_extend() -> None:
    lines = render_descriptor("analysis-common", PLUGIN_MODULES["analysis-common"], "2.19.4").splitlines()
    assert {"name=analysis-common", "opensearch.version=2.19.4", "extended.plugins=lang-painless"} <= set(lines)
    assert set(PLUGIN_MODULES) == set(Distribution("2.19.4").modules)
