"""The trust store of Maven's Java."""

import shutil
import ssl
import subprocess
from pathlib import Path

import certifi
import pytest

from services.maven import TRUSTSTORE_PASSWORD, trust_options, write_truststore


def test_the_trust_store_has_every_certificate_of_the_bundle(tmp_path: Path) -> None:
    keytool = shutil.which("keytool")
    if keytool is None:
        pytest.fail("keytool (a part of every Java, which Maven needs) is not on the PATH")
    bundle, store = Path(certifi.where()), tmp_path / "store.jks"
    count = write_truststore(bundle, store)
    assert count == bundle.read_text().count(ssl.PEM_HEADER) > 50
    command = [keytool, "-list", "-keystore", str(store), "-storepass", TRUSTSTORE_PASSWORD]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert listed.stdout.count("trustedCertEntry") == count


def test_a_configured_bundle_is_trusted(tmp_path: Path) -> None:
    told = trust_options({"SSL_CERT_FILE": certifi.where(), "MAVEN_OPTS": "-Xmx1g"}, tmp_path)
    assert told["MAVEN_OPTS"].startswith("-Xmx1g -Djavax.net.ssl.trustStore=")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SSL_CERT_FILE": "/nowhere.pem"},
        {"SSL_CERT_FILE": certifi.where(), "MAVEN_OPTS": "-Djavax.net.ssl.trustStore=/mine"},
    ],
)
def test_without_a_usable_bundle_nothing_changes(environment: dict[str, str], tmp_path: Path) -> None:
    assert trust_options(environment, tmp_path) == {}
