"""The encoders that an installation knows: the configured one, further ones from the settings, the shipped ones."""

from dataclasses import dataclass
from pathlib import Path

from services.manifest import MANIFEST, WEIGHTS_ROOT, Manifest, read_manifest, resolve
from services.settings import Settings


@dataclass(frozen=True, slots=True)
class KnownEncoder:
    """A model directory and what its manifest says."""

    directory: Path
    manifest: Manifest


def known_encoders(settings: Settings, *further: str) -> list[KnownEncoder]:
    """The configured encoder first, each fingerprint once; `further` are more names or paths.

    Raises ConfigurationError for a directory that cannot be used.
    """
    named = [settings.encoder, *further, *(part.strip() for part in settings.more_encoders.split(",") if part.strip())]
    directories = [resolve(name) for name in named]
    directories += [path.parent for path in sorted(WEIGHTS_ROOT.glob(f"*/{MANIFEST}"))]
    found: dict[str, KnownEncoder] = {}
    for directory in directories:
        manifest = read_manifest(directory)
        found.setdefault(manifest.fingerprint, KnownEncoder(directory, manifest))
    return list(found.values())
