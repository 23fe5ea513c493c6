"""The start of `sparsewell reindex`: the plan of a new generation from the options, or a stopped reindex to resume."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indexer.reindex.plan import GenerationChanges
    from indexer.reindex.run import Reindexing
    from services.encoders.catalogue import KnownEncoder
    from services.encoders.manifest import DenseIdentity, Manifest
    from services.index_spec import Generation
    from services.settings import Settings


def begin_reindexing(
    work: "Reindexing",
    settings: "Settings",
    known: "list[KnownEncoder]",
    changes: "GenerationChanges",
    dense: "DenseIdentity | None",
    report: Callable[[str], None],
    *,
    convert: bool,
) -> bool:
    """Plan a new generation or resume a stopped one. Return False if its swap has begun, or the sweeper has done it.

    With `convert`, a resumed reindex also begins to convert values. Raises Conflict (`generation_kept`,
    `reindex_exists`) and the errors of `plan_generation`.
    """
    from indexer.reindex.plan import describe_changes, plan_generation
    from services.errors import Conflict
    from services.index_spec import IndexNames

    source = work.active()
    record = work.load()
    if record is not None and record.step == "swapping":
        return False
    if record is not None and record.step == "swapped" and not record.rollback and changes.any:
        manifest = _encoder_manifest(changes, known, record.target)
        engine = _chapter_engine_fingerprint(changes, known, record.source, settings)
        names, number = IndexNames(settings.index_prefix), record.target.number
        wanted = plan_generation(names, record.source, number, changes, manifest, dense, engine)
        if _is_same_generation(wanted, record.target):
            return False
    if record is not None and (record.step != "following" or record.rollback):
        raise Conflict(
            "generation_kept",
            f"Another generation of {work.index!r} exists ({record.step}). See `sparsewell generations show "
            f"{work.index}`, then finish the rollback or drop the generation.",
        )
    manifest = _encoder_manifest(changes, known, source if record is None else record.target)
    number = work.next_number() if record is None else record.target.number
    engine = _chapter_engine_fingerprint(changes, known, source, settings)
    target = plan_generation(IndexNames(settings.index_prefix), source, number, changes, manifest, dense, engine)
    if record is None:
        record = work.begin(source, target, convert=convert)
        report(f"Building generation {number} of {work.index} from generation {source.number}.")
    elif changes.any and not _is_same_generation(target, record.target):
        raise Conflict(
            "reindex_exists",
            f"A reindex of {work.index!r} with other changes has begun. Finish it without options, or abort it "
            f"with `sparsewell generations abort {work.index}`.",
        )
    else:
        report(f"Resuming generation {number} of {work.index} ({record.copied:,} documents copied so far).")
        if convert and not record.convert:
            work.begin_conversion()
    for line in describe_changes(source, record.target):
        report(f"  {line}")
    return True


def parse_talk_options(pairs: list[str]) -> dict[str, object]:
    """Parse NAME=VALUE pairs; a value is JSON if possible, else text. Raises ConfigurationError (`bad_talk`)."""
    import json

    from services.errors import ConfigurationError

    options: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or name == "chapters":
            raise ConfigurationError("bad_talk", f"--talk {pair!r} is not NAME=VALUE (--chapters names the engine).")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def _chapter_engine_fingerprint(
    changes: "GenerationChanges", known: "list[KnownEncoder]", source: "Generation", settings: "Settings"
) -> str:
    """Return the fingerprint of the engine that makes the chapters of talk; empty without an engine.

    Raises ConfigurationError for an engine that is not available here.
    """
    from indexer.runtime import load_chapter_maker
    from models.registry import load_encoder
    from services.encoders.manifest import resolve_model_directory
    from services.errors import ConfigurationError

    talk = source.spec.talk
    name = changes.chapters or ("none" if talk is None else talk.chapters)
    if name not in ("tiling", "podtile"):  # `plan_generation` refuses unknown engines
        return ""
    directory = (
        find_by_fingerprint(known, source).directory
        if changes.encoder is None
        else resolve_model_directory(changes.encoder)
    )
    encoder = load_encoder(str(directory))
    try:
        return load_chapter_maker(settings, name, encoder).fingerprint
    except ConfigurationError:
        if changes.chapters is not None:
            raise
        return source.chapters  # the engine stays the same, so this machine does not need its model


def _encoder_manifest(
    changes: "GenerationChanges", known: "list[KnownEncoder]", generation: "Generation"
) -> "Manifest":
    """Return the manifest of the named encoder, or else of the generation's encoder."""
    from services.encoders.manifest import read_manifest, resolve_model_directory

    if changes.encoder is not None:
        return read_manifest(resolve_model_directory(changes.encoder))
    return find_by_fingerprint(known, generation).manifest


def _is_same_generation(left: "Generation", right: "Generation") -> bool:
    return left.model_copy(update={"created_at": right.created_at, "token": right.token}) == right


def find_by_fingerprint(known: "Sequence[KnownEncoder]", generation: "Generation") -> "KnownEncoder":
    """Return the encoder of a generation. Raises ConfigurationError (`unknown_encoder`)."""
    from services.errors import ConfigurationError

    wanted = generation.encoder
    for encoder in known:
        if encoder.manifest.fingerprint == wanted.fingerprint:
            return encoder
    raise ConfigurationError(
        "unknown_encoder",
        f"No model directory of the encoder {wanted.name} ({wanted.fingerprint}) is known: give it with --encoder or "
        "in SPARSEWELL_MORE_ENCODERS.",
    )


def find_dense_change(changes: "GenerationChanges", settings: "Settings") -> "DenseIdentity | None":
    """Return the identity of the named dense encoder. Raises InvalidInput (`unknown_dense_encoder`)."""
    from indexer.reindex.plan import NO_DENSE
    from services.encoders.catalogue import find_dense_identity, list_dense_encoders

    return (
        None
        if changes.dense in (None, NO_DENSE)
        else find_dense_identity(list_dense_encoders(settings), changes.dense or "")
    )
