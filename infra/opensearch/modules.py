"""Modules and plugins that a release's node on Maven Central lacks, laid down beside it.

Since 3.5.0 the node of Maven Central is whole. That of 2.19 has one module, its transport; what the search needs lies
beside it as jars, and OpenSearch's own downloads, packages and images have all of them.
"""

import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from infra.opensearch.fetching import WITHOUT, unpack
from services.machine import maven

POM = Path(__file__).with_name("modules.pom.xml")
SECURITY = "opensearch-security"


@dataclass(frozen=True, slots=True)
class Module:
    """Where a module of the 2.x line comes from, and what its descriptor says."""

    artifact: str
    plugin: str
    extends: str = ""
    grants: str = ""


MODULES = {
    "lang-painless": Module(
        "lang-painless",
        "org.opensearch.painless.PainlessPlugin",
        # it makes classes from scripts, and looks up what those may use
        grants='permission java.lang.RuntimePermission "createClassLoader";\n'
        '  permission java.lang.RuntimePermission "getClassLoader";',
    ),
    "analysis-common": Module(
        "analysis-common", "org.opensearch.analysis.common.CommonAnalysisPlugin", extends="lang-painless"
    ),
    "mapper-extras": Module("mapper-extras-client", "org.opensearch.index.mapper.MapperExtrasPlugin"),
    "reindex": Module("reindex-client", "org.opensearch.index.reindex.ReindexPlugin"),
}


def add_modules(home: Path, version: str, names: Iterable[str]) -> None:
    """Fetches the modules that are not there. Raises as `maven.run`."""
    present = {_artifact(jar) for jar in home.glob("lib/*.jar")}
    for name in names:
        if (home / "modules" / name).is_dir() or name not in MODULES:
            continue
        module = MODULES[name]
        with tempfile.TemporaryDirectory(prefix=".module-", dir=home / "modules") as scratch:
            arguments = ["-f", str(POM), f"{maven.DEPENDENCY_PLUGIN}:copy-dependencies", "-DincludeScope=runtime"]
            arguments += [f"-Dmodule.artifact={module.artifact}", f"-Dopensearch.version={version}"]
            maven.run(
                [*arguments, f"-DoutputDirectory={scratch}"],
                what=f"{module.artifact}:{version}",
                without=WITHOUT,
            )
            target = home / "modules" / name
            target.mkdir(mode=0o755)
            for jar in Path(scratch).glob("*.jar"):
                # (two jars with one class are refused, so what the node has itself is left out)
                if _artifact(jar) not in present:
                    jar.rename(target / jar.name)
            (target / "plugin-descriptor.properties").write_text(descriptor(name, module, version))
            if module.grants:
                (target / "plugin-security.policy").write_text(f"grant {{\n  {module.grants}\n}};\n")


def add_security(home: Path, version: str) -> None:
    """Fetches the security plugin, which counts its releases of a node's release from 0. Raises as `maven.run`."""
    target = home / "plugins" / SECURITY
    target.mkdir(parents=True, mode=0o755)
    unpack(maven.Artifact("org.opensearch.plugin", SECURITY, f"{version}.0"), target)


def descriptor(name: str, module: Module, version: str) -> str:
    """plugin-descriptor.properties of a module."""
    lines = {
        "description": name, "version": version, "name": name, "classname": module.plugin, "java.version": "11",
        "opensearch.version": version, "extended.plugins": module.extends, "has.native.controller": "false",
    }  # fmt: skip
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def _artifact(jar: Path) -> str:
    """The name of a jar without its version."""
    return re.sub(r"-\d[^/]*$", "", jar.stem)
