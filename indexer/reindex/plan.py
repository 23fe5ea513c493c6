"""The plan of a reindexing: the declaration of the new generation and its differences from the old one.

`plan_generation` applies `GenerationChanges` to the old declaration. `describe_changes` lists the differences and
whether the vectors are copied or encoded again. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from services.encoders.manifest import DenseIdentity, Manifest
from services.errors import Conflict, InvalidInput
from services.index_spec import Generation, IndexNames, IndexSpec, rename_deprecated_talk_members
from services.opensearch.generations import new_generation
from services.opensearch.vector_reuse import has_same_vectors

NO_DENSE = "none"


@dataclass(frozen=True, slots=True)
class GenerationChanges:
    """The requested changes of a declaration. None and empty: no change.

    `dense` "none" removes the dense vectors. `chapters` is the chapter engine of talk, `talk` has other members of the
    talk declaration; both declare talk in an index without it.
    """

    encoder: str | None = None
    window_pieces: int | None = None
    window_overlap: int | None = None
    document_top_k: int | None = None
    adapt_weights: bool | None = None
    piece_features: bool | None = None
    language: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    dense: str | None = None
    windows: str | None = None
    chapters: str | None = None
    talk: Mapping[str, object] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        """Tell whether there is any change."""
        return self != GenerationChanges()


def plan_generation(
    names: IndexNames,
    source: Generation,
    number: int,
    changes: GenerationChanges,
    manifest: Manifest,
    dense: DenseIdentity | None = None,
    chapters: str = "",
) -> Generation:
    """Return the new generation.

    `manifest` is that of its encoder, `dense` the identity of `changes.dense`, `chapters` the fingerprint of its
    chapter engine (empty: unknown or none). The window is that of the encoder's manifest unless the index or the change
    declares one. Raises InvalidInput (`bad_change`, `bad_window`) and Conflict (`encoder_name_taken`).
    """
    if manifest.name == source.encoder.name and manifest.fingerprint != source.encoder.fingerprint:
        raise Conflict(
            "encoder_name_taken",
            f"Another encoder named {manifest.name!r} ({source.encoder.fingerprint}) encoded the index, and workers "
            "select their queue by that name: give the new encoder another `name` in its manifest.",
        )
    merged: dict[str, Any] = source.spec.model_dump()
    if changes.encoder is not None:
        merged["encoder"] = manifest.name
    plain = ("document_top_k", "adapt_weights", "piece_features", "language", "windows")
    merged |= {name: value for name in plain if (value := getattr(changes, name)) is not None}
    if changes.chapters is not None or changes.talk:
        if merged["talk"] is None and changes.windows is None:
            del merged["windows"]  # The default of an index with talk differs: both kinds of windows.
        engine = {} if changes.chapters is None else {"chapters": changes.chapters}
        try:
            talk = rename_deprecated_talk_members(changes.talk)
        except ValueError as error:
            raise InvalidInput("bad_change", f"talk: {error}.") from None
        merged["talk"] = {**(merged["talk"] or {}), **talk, **engine}
    if changes.dense is not None:
        merged["dense"] = None if changes.dense == NO_DENSE else changes.dense
    merged["fields"] = {**merged["fields"], **changes.fields}
    if changes.window_pieces is not None or changes.window_overlap is not None:
        base = source.spec.window or manifest.window
        merged["window"] = {
            "pieces": base.pieces if changes.window_pieces is None else changes.window_pieces,
            "overlap": base.overlap if changes.window_overlap is None else changes.window_overlap,
        }
    try:
        spec = IndexSpec.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(map(str, first["loc"]))
        raise InvalidInput("bad_change", f"{location}: {first['msg'].removeprefix('Value error, ')}.") from None
    max_window = manifest.max_pieces - 2  # Two special pieces open and close a window.
    if spec.window is not None and spec.window.pieces > max_window:
        raise InvalidInput("bad_window", f"The encoder {manifest.name} takes windows of {max_window} pieces at most.")
    new_dense = source.dense if changes.dense is None else dense
    target = new_generation(names, source.index, number, spec, manifest, source.lineage, new_dense)
    return target.model_copy(update={"chapters": chapters})


def _describe_dense(dense: DenseIdentity | None) -> str:
    return NO_DENSE if dense is None else f"{dense.name} ({dense.fingerprint}) window {dense.window.model_dump()}"


def _chapter_engine(generation: Generation) -> str:
    talk = generation.spec.talk
    if talk is None:
        return "no talk"
    return f"{talk.chapters} ({generation.chapters})" if generation.chapters else talk.chapters


def _describe_talk(generation: Generation) -> str | dict[str, Any]:
    talk = generation.spec.talk
    return "not declared" if talk is None else talk.model_dump(exclude={"chapters"})


def describe_changes(source: Generation, target: Generation) -> list[str]:
    """Describe the differences of two generations, one per line, for the terminal."""
    lines = []
    if source.encoder != target.encoder:
        lines.append(
            f"encoder: {source.encoder.name} ({source.encoder.fingerprint}) -> "
            f"{target.encoder.name} ({target.encoder.fingerprint})"
        )
    for name, old, new in (
        ("dense", _describe_dense(source.dense), _describe_dense(target.dense)),
        ("window", source.window.model_dump(), target.window.model_dump()),
        ("windows", source.spec.windows, target.spec.windows),
        ("document_top_k", source.spec.document_top_k, target.spec.document_top_k),
        ("adapt_weights", source.spec.adapt_weights, target.spec.adapt_weights),
        ("piece_features", source.spec.piece_features, target.spec.piece_features),
        ("chapters", _chapter_engine(source), _chapter_engine(target)),
        ("talk", _describe_talk(source), _describe_talk(target)),
        ("language", source.spec.language, target.spec.language),
        ("fields", source.spec.fields, target.spec.fields),
        ("suggests", source.suggests, target.suggests),
        ("titles", source.titles, target.titles),
        ("folds", source.folds, target.folds),
    ):
        if old != new:
            lines.append(f"{name}: {old} -> {new}")
    copied = has_same_vectors(source, target)
    lines.append("vectors: " + ("copied" if copied else "encoded again"))
    if copied and source.spec.talk is not None and _chapter_engine(source) != _chapter_engine(target):
        lines.append("talk: encoded again where its chapters are neither the producer's nor from this engine")
    return lines
