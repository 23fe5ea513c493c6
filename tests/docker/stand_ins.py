"""Images that take the place of those of a registry, because the tests reach no registry.

The base of ours is a Debian of the same release with its Python. OpenSearch is the distribution that `sparsewell up`
fetches, Redis is Debian's. They have the names, users and directories that docker-compose.yml expects.
"""

import hashlib
from pathlib import Path

from infra.local_servers import LocalSettings
from infra.opensearch.configuration import JavaRuntime, find_java, render_jvm_options
from infra.opensearch.distribution import (
    Distribution,
    OpenSearchHome,
    locate_distribution,
    minimum_java_release,
    newest_java_release,
)
from services.directories import resolve_cache_directory
from tests.docker.engine import Podman, run_checked

SUITE = "bookworm"
PACKAGES = (
    # for ours; the official image of Python has the first three too
    "ca-certificates", "netbase", "tzdata", "passwd", "python3", "python3-venv", "python3-pip", "python-is-python3",
    "binutils",
    "redis-server", "curl",  # for Redis, and for the health check of OpenSearch
)  # fmt: skip
# pip and uv in a build trust what this machine trusts, for example the certificate of a proxy.
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
DEBIAN = (
    "--variant=essential", "--quiet", "--dpkgopt=force-unsafe-io",
    *(f"--dpkgopt=path-exclude=/usr/share/{unread}/*" for unread in ("man", "doc", "locale")),
)  # fmt: skip

# The Redis of the real image accepts clients of other machines.
REDIS_START = """\
#!/bin/sh
exec "$@" --protected-mode no
"""
REDIS = """\
FROM {base}
RUN groupadd --gid 1000 redis-data && usermod --uid 999 --gid 1000 redis && mkdir /data && chown 999:1000 /data
COPY --chmod=755 start /start
VOLUME /data
WORKDIR /data
ENTRYPOINT ["/start"]
"""
# As the entry point of the real image does: a variable with a dot is a setting of the node.
OPENSEARCH_START = """\
#!/bin/bash
options=()
while IFS= read -r -d '' variable; do
    if [[ $variable =~ ^[a-z_]+\\.[a-z_.]+= ]]; then options+=("-E$variable"); fi
done </proc/self/environ
exec /usr/share/opensearch/bin/opensearch "${options[@]}"
"""
OPENSEARCH = """\
FROM {base}
RUN groupadd --gid 1000 opensearch && useradd --uid 1000 --gid 1000 --home-dir /usr/share/opensearch opensearch
COPY --from=java --chown=1000:1000 / /usr/share/opensearch/jdk
COPY --from=home --chown=1000:1000 / /usr/share/opensearch
COPY --chown=1000:1000 jvm.options opensearch.yml /usr/share/opensearch/config/
COPY --chmod=755 start /start
WORKDIR /usr/share/opensearch
RUN mkdir -p data logs && chown 1000:1000 data logs
ENV OPENSEARCH_JAVA_HOME=/usr/share/opensearch/jdk
ENTRYPOINT ["/start"]
"""


def make_base(podman: Podman, scratch: Path) -> str:
    """Return the name of the base image. It is made once for a list of packages and the certificates."""
    text = " ".join((SUITE, *PACKAGES, *DEBIAN)).encode()
    name = f"localhost/base:{hashlib.sha256(text + CERTIFICATES.read_bytes()).hexdigest()[:12]}"
    if not podman.has_image(name):
        archive = scratch / "base.tar"
        certificates = f"--customize-hook=copy-in {CERTIFICATES} {CERTIFICATES.parent}"
        command = ["mmdebstrap", *DEBIAN, f"--include={','.join(PACKAGES)}", certificates, SUITE, str(archive)]
        run_checked(command, podman.environment)
        podman.run("import", "--quiet", str(archive), name)
        archive.unlink()
    return name


def make_redis(podman: Podman, base: str, name: str, scratch: Path) -> None:
    """Make the image of Redis under the name in docker-compose.yml."""
    _build(podman, REDIS.format(base=base), name, scratch / "redis", {"start": REDIS_START})


def make_opensearch(podman: Podman, base: str, name: str, scratch: Path) -> JavaRuntime:
    """Make the image of OpenSearch under the name in docker-compose.yml. Return the Java runtime in it."""
    home, java = find_opensearch(LocalSettings.read())
    options = render_jvm_options(
        (home.path / "config" / "jvm.options").read_text(),
        heap="512m",
        logs=Path("/usr/share/opensearch/logs"),
        has_vector_module=java.has_vector_module,
    )
    options += "-XX:TieredStopAtLevel=1\n"  # a start takes a third less processor time (tests/conftest.py)
    # a test machine's disk may be nearly full
    settings = "network.host: 0.0.0.0\ncluster.routing.allocation.disk.threshold_enabled: false\n"
    files = {"jvm.options": options, "opensearch.yml": settings, "start": OPENSEARCH_START}
    contexts = ("--build-context", f"home={home.path}", "--build-context", f"java={java.home}")
    _build(podman, OPENSEARCH.format(base=base), name, scratch / "opensearch", files, *contexts)
    return java


def find_opensearch(settings: LocalSettings) -> tuple[OpenSearchHome, JavaRuntime]:
    """Return the distribution and the Java runtime that the local stack uses."""
    cache = resolve_cache_directory(settings)
    home = locate_distribution(
        Distribution(settings.opensearch_version),
        home=settings.opensearch_home,
        cache=cache,
        account=None,
        report=print,
    )
    java = find_java(
        minimum_java_release(home.version),
        newest=newest_java_release(home.version),
        named=settings.java_home,
        bundled=home.path / "jdk",
        cache=cache,
        account=None,
    )
    return home, java


def _build(podman: Podman, text: str, name: str, folder: Path, files: dict[str, str], *options: str) -> None:
    folder.mkdir()
    for file, content in files.items():
        (folder / file).write_text(content)
    (folder / "Dockerfile").write_text(text)
    podman.run("build", "--format", "docker", "--layers", "--tag", name, *options, str(folder))
