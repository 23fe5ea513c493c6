"""`sparsewell reindex`: build a new generation of an index while the old generation serves searches and writes.

The command plans the generation, or resumes a stopped reindex, waits until the documents are encoded, compares both
generations on judged queries if asked, checks that the API has the query table, and swaps the alias.
"""

from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cli.relevance.reindex_gate import QualityGate
    from cli.terminal import LoadDisplay
    from indexer.reindex.follower import Follower
    from indexer.reindex.plan import GenerationChanges
    from indexer.reindex.run import Reindexing, ReindexProgress
    from indexer.runtime import Runtime
    from services.encoders.catalogue import KnownEncoder
    from services.encoders.manifest import DenseIdentity, Manifest
    from services.index_spec import Generation
    from services.settings import Settings

EncodeHereOption = Annotated[bool, typer.Option("--encode-here", help="encode in this process, without workers")]
StallSecondsOption = Annotated[
    float,
    typer.Option(
        "--stall-seconds",
        "--patience",
        min=1,
        help="seconds without progress before the command gives up (--patience: former name)",
    ),
]
TableApiOption = Annotated[
    str | None,
    typer.Option("--api", help="address of the API that must have the query table; default: from the settings"),
]
UncheckedOption = Annotated[bool, typer.Option("--unchecked", help="swap without checking the API's query table")]


def reindex(  # noqa: PLR0913, PLR0917 (each is an option of the command)
    index: Annotated[str, typer.Argument(help="index to build a new generation of")],
    encoder: Annotated[
        str | None, typer.Option(help="new encoder: name of a shipped one, or path of a model directory")
    ] = None,
    window: Annotated[int | None, typer.Option(min=16, help="pieces per window")] = None,
    overlap: Annotated[int | None, typer.Option(min=0, help="pieces that neighbouring windows share")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="number of heaviest pieces of a document to index")] = None,
    adapt_weights: Annotated[
        bool | None,
        typer.Option("--adapt-weights/--fixed-weights", help="adapt the weights of query pieces to the documents"),
    ] = None,
    dense: Annotated[
        str | None, typer.Option(help="dense encoder for reranking; none removes the dense vectors")
    ] = None,
    windows: Annotated[str | None, typer.Option(help="vectors to search: merged, nested or both")] = None,
    chapters: Annotated[
        str | None,
        typer.Option(help="engine of chapters: tiling, podtile or none; a change makes the chapters again"),
    ] = None,
    talk: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of the index's declaration of talk; repeatable")
    ] = None,
    language: Annotated[str | None, typer.Option(help="analyser of lexical search: english or standard")] = None,
    field: Annotated[list[str] | None, typer.Option(help="NAME=TYPE of a metadata field; repeatable")] = None,
    judgements: Annotated[
        Path | None, typer.Option(help="folder with queries.jsonl and qrels.tsv: swap only if the quality holds")
    ] = None,
    max_loss: Annotated[float, typer.Option(min=0, max=1, help="loss of NDCG@10 that is allowed")] = 0.0,
    gate_modes: Annotated[
        str, typer.Option(help="modes that the quality gate checks, separated by commas")
    ] = "sparse,hybrid",
    encode_here: EncodeHereOption = False,
    swap: Annotated[bool, typer.Option(help="swap when the new generation is complete, or stop before")] = True,
    stall_seconds: StallSecondsOption = 300.0,
    api: TableApiOption = None,
    unchecked: UncheckedOption = False,
) -> None:
    """Build a new generation of an index, compare it, and swap. The old one serves searches and writes meanwhile.

    Repeat the command to resume a stopped reindex. The old generation is kept, see `sparsewell generations`.

    Example: sparsewell reindex books --encoder /models/mine --judgements judged
    """
    from rich.console import Console

    from cli.loading.load import parse_fields
    from cli.terminal import LoadDisplay
    from indexer.reindex.plan import GenerationChanges
    from indexer.reindex.run import Reindexing
    from services.encoders.catalogue import load_known_encoders
    from services.opensearch.client import SyncSearchClient
    from services.settings import Settings
    from services.telemetry.logs import configure_logging

    settings = Settings.read()
    configure_logging("reindex", settings.log_format, "warning")
    # Check all options before copying the first document.
    gate = _open_gate(judgements, gate_modes, max_loss)
    changes = GenerationChanges(
        encoder=encoder,
        window_pieces=window,
        window_overlap=overlap,
        document_top_k=top_k,
        adapt_weights=adapt_weights,
        language=language,
        fields=parse_fields(field, create=True) if field else {},
        dense=dense,
        windows=windows,
        chapters=chapters,
        talk=_parse_talk_options(talk or []),
    )
    dense_vectors = _dense_identity(changes, settings)
    known = load_known_encoders(settings, *([encoder] if encoder else []))
    search = SyncSearchClient(settings)
    try:
        with LoadDisplay(Console(stderr=True)) as show:
            work = Reindexing(search, settings, index)
            build = GenerationBuild(work, settings, known, show, stall_seconds, encode_here)
            if not _begin_reindexing(work, settings, known, changes, dense_vectors, show.report):
                if work.current_record.step == "swapping":
                    build.swap()
                typer.echo(
                    f"{index}: generation {work.current_record.target.number} is searched; its swap had already begun."
                )
                return
            progress = build.until_caught_up()
            if gate is not None:
                build.require_quality(gate)
            documents = ", ".join(f"{count:,} {state}" for state, count in progress.new.items() if count)
            if not swap:
                number = work.current_record.target.number
                typer.echo(f"{index}: generation {number} is complete ({documents}) and not searched yet.")
                return
            if not unchecked:
                build.require_table(api)
            build.swap()
            typer.echo(f"{index}: generation {work.current_record.target.number} is searched ({documents}).")
    except KeyboardInterrupt:
        typer.echo("Stopped. Repeat the command to resume, or abort with `sparsewell generations abort`.", err=True)
        raise typer.Exit(130) from None
    finally:
        search.close()


@dataclass
class GenerationBuild:
    """The steps of a command on the record of a reindex."""

    work: "Reindexing"
    settings: "Settings"
    known: "list[KnownEncoder]"
    show: "LoadDisplay"
    stall_seconds: float
    encode_here: bool = False

    def until_caught_up(self) -> "ReindexProgress":
        """Create the new generation and copy the documents of the old one until it has caught up.

        Raises the errors of `Reindexing.follow_until_caught_up`, and Conflict (`misfits`).
        """
        from indexer.piece_frequencies import FrequencyUpdate
        from services.errors import Conflict

        self.work.make_target()
        with self._open_follower() as follower:
            self.show.begin("building", 1, unit="documents")
            progress = self.work.follow_until_caught_up(follower, self.stall_seconds, self._show)
        record = follower.record
        if record.incompatible:
            raise Conflict(
                "misfits",
                f"{record.incompatible:,} documents do not fit the new declaration (for example "
                f"{', '.join(record.incompatible_ids[:3])}): `sparsewell generations abort {record.index}`, "
                "then change it.",
            )
        fresh_dead = progress.new["dead"] - progress.old["dead"]
        if fresh_dead > 0:
            self.show.report(f"{fresh_dead:,} more documents are dead in the new generation than in the old one.")
        FrequencyUpdate(self.settings, self.work.search, self.known).count_new(record.target)
        return progress

    def require_quality(self, gate: "QualityGate") -> None:
        """Compare both generations on the judged queries. Raises Conflict (`quality_gate`)."""
        from cli.relevance.reindex_gate import compare_generations
        from services.encoders.query_table import QueryTable

        record = self.work.current_record
        old, new = (
            (generation, QueryTable.load(find_by_fingerprint(self.known, generation).directory))
            for generation in (record.source, record.target)
        )
        compare_generations(self.settings, gate, old, new, self.show.report)

    def require_table(self, api: str | None) -> None:
        """Check that the API has the query table of the new generation. Raises EncoderMismatch, BackendUnavailable."""
        from cli.api_client import admin_headers, api_address, connect_api, request_json
        from services.errors import EncoderMismatch

        wanted = self.work.current_record.target.encoder
        base = api_address(self.settings, api)
        with connect_api(base, 10) as client:
            served = request_json(client, base, "GET", "/v1/encoders", headers=admin_headers(self.settings))
        if wanted.fingerprint not in {encoder["fingerprint"] for encoder in served["encoders"]}:
            raise EncoderMismatch(
                "encoder_not_served",
                f"The API at {base} has no query table for {wanted.name} ({wanted.fingerprint}): add its model "
                "directory to SPARSEWELL_MORE_ENCODERS, restart the API, then repeat this command.",
            )

    def swap(self) -> None:
        """Record the decision, swap the alias, and copy the last changes of the old generation."""
        with self._open_follower() as follower:
            self.work.swap(follower)

    @contextmanager
    def _open_follower(self) -> "Iterator[Follower]":
        from indexer.reindex.follower import make_local_dispatch, make_queue_dispatch
        from services.queue.messages import Publisher

        target = self.work.current_record.target
        with closing(Publisher(self.settings.redis_address)) as publisher:
            if self.encode_here:
                dispatch = make_local_dispatch(self._open_runtime(target), target)
            else:
                dispatch = make_queue_dispatch(publisher, self.settings, target)
            yield self.work.follower(dispatch, self.stall_seconds)

    def _open_runtime(self, target: "Generation") -> "Runtime":
        from indexer.runtime import Runtime, WorkerSettings

        directory = find_by_fingerprint(self.known, target).directory
        return Runtime(self.settings.model_copy(update={"encoder": str(directory)}), WorkerSettings.read())

    def _show(self, progress: "ReindexProgress") -> None:
        new = progress.new
        done = new["encoded"] + new["dead"] + new["deleted"]
        self.show.step(done, max(1, done + new["pending"] + progress.behind), done)


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


def _open_gate(judgements: Path | None, modes: str, max_loss: float) -> "QualityGate | None":
    """Read the judged queries of the quality gate. Raises ConfigurationError (`bad_mode`, `missing_extra`)."""
    from cli.relevance.metrics import measure_rankings
    from cli.relevance.reindex_gate import MODES, JudgedQuestions, QualityGate
    from services.errors import ConfigurationError

    chosen = [mode.strip() for mode in modes.split(",") if mode.strip()]
    if not chosen or not set(chosen) <= set(MODES):
        raise ConfigurationError("bad_mode", f"--gate-modes {modes!r}: choose among {', '.join(MODES)}.")
    if judgements is None:
        return None
    measure_rankings({"query": {"document": 1}}, {"query": [("document", 1.0)]})  # fails early without the `eval` extra
    return QualityGate(JudgedQuestions.read(judgements), chosen, max_loss)


def _dense_identity(changes: "GenerationChanges", settings: "Settings") -> "DenseIdentity | None":
    """Return the identity of the named dense encoder. Raises InvalidInput (`unknown_dense_encoder`)."""
    from indexer.reindex.plan import NO_DENSE
    from services.encoders.catalogue import find_dense_identity, list_dense_encoders

    return (
        None
        if changes.dense in (None, NO_DENSE)
        else find_dense_identity(list_dense_encoders(settings), changes.dense or "")
    )


def _begin_reindexing(  # type: ignore[no-untyped-def]
    work: "Reindexing",
    settings: "Settings",
    known: "list[KnownEncoder]",
    changes: "GenerationChanges",
    dense: "DenseIdentity | None",
    report,
) -> bool:
    """Plan a new generation or resume a stopped one. Return False if its swap has begun, or the sweeper has done it."""
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
        record = work.begin(source, target)
        report(f"Building generation {number} of {work.index} from generation {source.number}.")
    elif changes.any and not _is_same_generation(target, record.target):
        raise Conflict(
            "reindex_exists",
            f"A reindex of {work.index!r} with other changes has begun. Finish it without options, or abort it "
            f"with `sparsewell generations abort {work.index}`.",
        )
    else:
        report(f"Resuming generation {number} of {work.index} ({record.copied:,} documents copied so far).")
    for line in describe_changes(source, record.target):
        report(f"  {line}")
    return True


def _parse_talk_options(pairs: list[str]) -> dict[str, object]:
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
