"""Unpacks one release of OpenSearch with Maven's ordinary client."""

from pathlib import Path

from services.machine import maven

POM = Path(__file__).with_name("pom.xml")
WITHOUT = (
    "OpenSearch must be fetched once, and there is no mvn on the PATH to do it. Install Maven (Debian: "
    "apt-get install maven), or set OPENSEARCH_HOME to an unpacked OpenSearch, or OPENSEARCH_URL to a running one."
)
GOAL = f"{maven.DEPENDENCY_PLUGIN.rpartition(':')[0]}:unpack@distribution"


def unpack(artifact: maven.Artifact, directory: Path) -> None:
    """Fetches the zip artifact, checks it against the published checksum and unpacks it into `directory`.

    Raises `no_mvn` when there is no Maven and `download_failed`, with Maven's last lines, when it does not succeed.
    """
    arguments = ["-f", str(POM), GOAL]
    arguments += [f"-Dopensearch.group={artifact.group}", f"-Dopensearch.artifact={artifact.artifact}"]
    arguments += [f"-Dopensearch.version={artifact.version}", f"-Dunpack.directory={directory}"]
    maven.run(arguments, what=str(artifact), without=WITHOUT)
