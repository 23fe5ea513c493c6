"""Inspection of encoders for `sparsewell encoders`.

It returns plain values, so that a terminal and `--json` show the same: rows of a list, a manifest with both ends of the
query table, weighted pieces of a text, problems found by `models.verification`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.api_client import require_utf8
from services.encoders.catalogue import (
    KnownEncoder,
    NamedEncoder,
    find_encoder,
    find_model_directories,
    list_named_encoders,
)
from services.encoders.manifest import expand_path
from services.encoders.query_table import QueryTable
from services.encoders.vectors import merge_max
from services.errors import ConfigurationError, InvalidInput
from services.opensearch.queries import feature_sum
from services.settings import Settings

WeightedPieces = list[tuple[str, float]]


def encoder_row(named: NamedEncoder) -> dict[str, Any]:
    """Return the row of an encoder in a list. An unusable encoder has `error` and `code` instead of facts."""
    place: dict[str, Any] = {"where": str(named.directory), "origin": named.origin}
    if isinstance(named.encoder, ConfigurationError):
        return place | {"name": named.directory.name, "error": named.encoder.detail, "code": named.encoder.code}
    manifest = named.encoder.manifest
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


def find_duplicate_names(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names that several fingerprints share. An index declared by such a name gets the first encoder."""
    fingerprints: dict[str, set[str]] = {}
    for row in rows:
        if "fingerprint" in row:
            fingerprints.setdefault(row["name"], set()).add(row["fingerprint"])
    return sorted(name for name, distinct in fingerprints.items() if len(distinct) > 1)


def describe_encoder(encoder: KnownEncoder, table: QueryTable, shown: int) -> dict[str, Any]:
    """Return the manifest, its missing files, and the `shown` heaviest and lightest pieces of the query table."""
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


def weigh_query(table: QueryTable, text: str) -> WeightedPieces:
    """Return the weighted pieces of a query, the heaviest first. Raises InvalidInput (`query_too_long`)."""
    vector = table.encode(text, max_pieces=1000)
    pieces = [(table.piece(i), weight) for i, weight in zip(vector.ids, vector.weights, strict=True)]
    return sorted(pieces, key=lambda pair: -pair[1])


def build_piece_search(table: QueryTable, text: str | None, field: str, hits: int) -> tuple[dict[str, Any], list[str]]:
    """Return the body of a search over a rank_features field with pieces as names, and the pieces it cannot name.

    OpenSearch's neural-search plugin writes such fields, and so does an index with `piece_features`. Raises
    InvalidInput (`no_query`, `query_too_long`).
    """
    if text is None:
        raise InvalidInput("no_query", "--field needs the query: add --query TEXT.")
    vector = table.encode(require_utf8(text, "A query"), max_pieces=1000)
    named = [(table.token(i), weight) for i, weight in zip(vector.ids, vector.weights, strict=True)]
    body = {"query": feature_sum([pair for pair in named if "." not in pair[0]], field), "size": hits}
    return body, [name for name, _ in named if "." in name]


def weigh_document(
    directory: Path, table: QueryTable, text: str, query: str | None
) -> tuple[WeightedPieces, float | None]:
    """Return the indexed vector of a text (maximum over its windows), the heaviest piece first, and the query's score.

    Raises ConfigurationError (`missing_extra`, and the codes of `models.registry.load_encoder`).
    """
    try:
        from models.registry import load_encoder

        encoder = load_encoder(str(directory), threads=1)
    except ModuleNotFoundError as error:
        raise _missing_worker(error) from None
    vector = merge_max(encoder.encode(encoder.windows(text)))
    pieces = zip(vector.ids.tolist(), vector.weights.tolist(), strict=True)
    weights = sorted(((encoder.piece(i), weight) for i, weight in pieces), key=lambda pair: -pair[1])
    return weights, None if query is None else vector.dot(table.encode(query, max_pieces=1000).by_id())


def verify_encoders(settings: Settings, names: Sequence[str] | None) -> list[dict[str, Any]]:
    """Return the problems of each named encoder, in the order of the names; None means all known encoders.

    A name may also be a directory, even of a broken encoder, or a folder of encoders. Raises ConfigurationError
    (`missing_extra`, `ambiguous_encoder`).
    """
    all_named = list_named_encoders(settings)
    if names is None:
        return [_verify_directory(named.directory, named.encoder) for named in all_named]
    reports: list[dict[str, Any]] = []
    for name in names:
        path = expand_path(name)
        try:
            reports.append(_verify_directory(find_encoder(all_named, name).directory))
        except ConfigurationError as error:
            if error.code in {"missing_extra", "ambiguous_encoder"}:
                raise
            if path.is_dir():
                reports += [_verify_directory(directory) for directory in find_model_directories(path)]
            else:
                reports.append(_verify_directory(path, error))
    return reports


def _verify_directory(directory: Path, known: KnownEncoder | ConfigurationError | None = None) -> dict[str, Any]:
    """Return the problems of a directory. A missing directory has one problem, the error `known`."""
    if isinstance(known, ConfigurationError) and not directory.is_dir():
        return {"name": str(directory), "problems": [{"code": known.code, "detail": known.detail}]}
    try:
        from models.verification import verify_directory
    except ModuleNotFoundError as error:
        raise _missing_worker(error) from None
    verdict = verify_directory(directory)
    problems = [{"code": problem.code, "detail": problem.detail} for problem in verdict.problems]
    report: dict[str, Any] = {"name": str(directory), "problems": problems}
    if not problems and verdict.table is not None:
        report |= {"coverage": verdict.table.coverage, "words": verdict.words, "own_words": verdict.own_words}
    return report


def _missing_worker(error: ModuleNotFoundError) -> ConfigurationError:
    return ConfigurationError("missing_extra", f"Encoding needs the package {error.name}: pip install -e '.[worker]'.")
