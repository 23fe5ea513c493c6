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
    from collections.abc import Iterator, Mapping

    from cli.relevance.reindex_gate import QualityGate
    from cli.terminal import LoadDisplay
    from indexer.reindex.follower import Follower
    from indexer.reindex.run import Reindexing, ReindexProgress
    from indexer.runtime import Runtime
    from services.encoders.catalogue import KnownEncoder
    from services.index_spec import Generation
    from services.opensearch.reindex import ReindexRecord
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
    piece_features: Annotated[
        bool | None,
        typer.Option(
            "--piece-features/--no-piece-features", help="also index vectors by piece, for neural_sparse queries"
        ),
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
    language: Annotated[
        str | None, typer.Option(help="analyser of lexical search: a language such as german, or standard")
    ] = None,
    field: Annotated[list[str] | None, typer.Option(help="NAME=TYPE of a metadata field; repeatable")] = None,
    convert: Annotated[
        bool, typer.Option("--convert", help="convert stored values to the changed types of fields, as load does")
    ] = False,
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
    from cli.reindex_plan import begin_reindexing, find_dense_change, parse_talk_options
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
        piece_features=piece_features,
        language=language,
        fields=parse_fields(field, create=True) if field else {},
        dense=dense,
        windows=windows,
        chapters=chapters,
        talk=parse_talk_options(talk or []),
    )
    dense_vectors = find_dense_change(changes, settings)
    known = load_known_encoders(settings, *([encoder] if encoder else []))
    search = SyncSearchClient(settings)
    try:
        with LoadDisplay(Console(stderr=True)) as show:
            work = Reindexing(search, settings, index)
            build = GenerationBuild(work, settings, known, show, stall_seconds, encode_here)
            if not begin_reindexing(work, settings, known, changes, dense_vectors, show.report, convert=convert):
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
            raise Conflict("misfits", describe_misfits(record, follower.reasons))
        fresh_dead = progress.new["dead"] - progress.old["dead"]
        if fresh_dead > 0:
            self.show.report(f"{fresh_dead:,} more documents are dead in the new generation than in the old one.")
        FrequencyUpdate(self.settings, self.work.search, self.known).count_new(record.target)
        return progress

    def require_quality(self, gate: "QualityGate") -> None:
        """Compare both generations on the judged queries. Raises Conflict (`quality_gate`)."""
        from cli.reindex_plan import find_by_fingerprint
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
        from services.queue.installation import claim_redis
        from services.queue.messages import Publisher

        target = self.work.current_record.target
        with closing(Publisher(self.settings.redis_address)) as publisher:
            if self.encode_here:
                dispatch = make_local_dispatch(self._open_runtime(target), target)
            else:
                claim_redis(self.settings)
                dispatch = make_queue_dispatch(publisher, self.settings, target)
            yield self.work.follower(dispatch, self.stall_seconds)

    def _open_runtime(self, target: "Generation") -> "Runtime":
        from cli.reindex_plan import find_by_fingerprint
        from indexer.runtime import Runtime, WorkerSettings

        directory = find_by_fingerprint(self.known, target).directory
        return Runtime(self.settings.model_copy(update={"encoder": str(directory)}), WorkerSettings.read())

    def _show(self, progress: "ReindexProgress") -> None:
        new = progress.new
        done = new["encoded"] + new["dead"] + new["deleted"]
        self.show.step(done, max(1, done + new["pending"] + progress.behind), done)


def describe_misfits(record: "ReindexRecord", reasons: "Mapping[str, str]") -> str:
    """List the first documents that do not fit the new declaration, and say what to do about them."""
    listed = "\n".join(f"  {name}: {reasons.get(name, 'found by an earlier run')}" for name in record.incompatible_ids)
    further = record.incompatible - len(record.incompatible_ids)
    more = f"\n  and {further:,} more" if further > 0 else ""
    abort = f"give up with `sparsewell generations abort {record.index}`"
    advice = (
        f"Correct these documents, then {abort} and begin again."
        if record.convert
        else f"Repeat the command with --convert to convert their values, or {abort}."
    )
    return f"{record.incompatible:,} documents do not fit the new declaration. {advice}\n{listed}{more}"


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
