"""What is told about an encoder, as plain values: the same for a person and for `--json`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.errors import ConfigurationError
from services.known_encoders import KnownEncoder, Named, find_encoder, model_directories, named_encoders
from services.manifest import as_path
from services.query_table import QueryTable
from services.settings import Settings
from services.vectors import merge_max

Weighted = list[tuple[str, float]]


def row(one: Named) -> dict[str, Any]:
    """An encoder in a list of them; one that cannot be used has the members `error` and `code` instead."""
    place: dict[str, Any] = {"where": str(one.directory), "origin": one.origin}
    if isinstance(one.encoder, ConfigurationError):
        return place | {"name": one.directory.name, "error": one.encoder.detail, "code": one.encoder.code}
    manifest = one.encoder.manifest
    return place | {
        "name": manifest.name,
        "fingerprint": manifest.fingerprint,
        "architecture": manifest.architecture,
        "vocabulary": manifest.vocabulary,
        "precision": (manifest.model_extra or {}).get("precision"),
        "window": manifest.window.model_dump(),
        "top_k": manifest.top_k,
        "licence": manifest.licence,
        "bytes": sum(file.bytes for file in manifest.files.values()),
    }


def namesakes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Names that belong to several fingerprints: of those an index that is declared by name gets the first."""
    fingerprints: dict[str, set[str]] = {}
    for one in rows:
        if "fingerprint" in one:
            fingerprints.setdefault(one["name"], set()).add(one["fingerprint"])
    return sorted(name for name, several in fingerprints.items() if len(several) > 1)


def described(encoder: KnownEncoder, table: QueryTable, shown: int) -> dict[str, Any]:
    """The manifest, the state of its files, and the ends of the query table."""
    manifest, directory = encoder.manifest, encoder.directory
    weighted = table.weighted()
    return {
        "where": str(directory),
        "manifest": manifest.model_dump(),
        "missing_files": [name for name in manifest.files if not (directory / name).is_file()],
        "query_table": {
            "pieces": len(weighted),
            "heaviest": weighted[:shown],
            "lightest": weighted[::-1][:shown],
        },
    }


def query_weights(table: QueryTable, text: str) -> Weighted:
    """The weighted pieces of a query, heaviest first. Raises InvalidInput (`query_too_long`)."""
    found = table.encode(text, max_pieces=1000)
    pieces = [(table.piece(i), weight) for i, weight in zip(found.ids, found.weights, strict=True)]
    return sorted(pieces, key=lambda pair: -pair[1])


def document_weights(directory: Path, table: QueryTable, text: str, query: str | None) -> tuple[Weighted, float | None]:
    """The vector of a text as it is indexed (the maximum over its windows), heaviest first, and the query's score.

    Raises ConfigurationError: what `models.registry.load_encoder` raises, `missing_extra`.
    """
    try:
        from models.registry import load_encoder

        encoder = load_encoder(str(directory), threads=1)
    except ModuleNotFoundError as error:
        raise missing_worker(error) from None
    vector = merge_max(encoder.encode(encoder.windows(text)))
    pieces = zip(vector.ids.tolist(), vector.weights.tolist(), strict=True)
    weights = sorted(((encoder.piece(i), weight) for i, weight in pieces), key=lambda pair: -pair[1])
    return weights, None if query is None else vector.dot(table.encode(query, max_pieces=1000).by_id())


def verdicts(settings: Settings, names: Sequence[str] | None) -> list[dict[str, Any]]:
    """What is wrong with each named encoder (None: every one that is known), in the order of the names.

    A directory may be named whatever is in it, so that a broken one can be looked at too; a folder of encoders stands
    for all of them. Raises ConfigurationError (`missing_extra`).
    """
    named = named_encoders(settings)
    if names is None:
        return [_verdict(one.directory, one.encoder) for one in named]
    found: list[dict[str, Any]] = []
    for name in names:
        path = as_path(name)
        try:
            found.append(_verdict(find_encoder(named, name).directory))
        except ConfigurationError as error:
            if error.code in {"missing_extra", "ambiguous_encoder"}:
                raise
            found += [_verdict(one) for one in model_directories(path)] if path.is_dir() else [_verdict(path, error)]
    return found


def _verdict(directory: Path, known: KnownEncoder | ConfigurationError | None = None) -> dict[str, Any]:
    """Of a directory; of one that could not be found nothing but the error that said so."""
    if isinstance(known, ConfigurationError) and not directory.is_dir():
        return {"name": str(directory), "problems": [{"code": known.code, "detail": known.detail}]}
    try:
        from models.verification import verify
    except ModuleNotFoundError as error:
        raise missing_worker(error) from None
    verdict = verify(directory)
    problems = [{"code": problem.code, "detail": problem.detail} for problem in verdict.problems]
    found: dict[str, Any] = {"name": str(directory), "problems": problems}
    if not problems and verdict.table is not None:
        found |= {"coverage": verdict.table.coverage, "words": verdict.words, "own_words": verdict.own_words}
    return found


def missing_worker(error: ModuleNotFoundError) -> ConfigurationError:
    return ConfigurationError("missing_extra", f"Encoding needs the package {error.name}: pip install -e '.[worker]'.")
