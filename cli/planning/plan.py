"""From a need and measured coefficients to machines: each figure with the formula that it is from. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

from cli.planning.costs import Coefficients
from cli.planning.need import Machine, Need
from services.errors import ConfigurationError

GIB = 1024**3
HOURS = 730  # of a month
# OpenSearch's advice for search is 10 to 30 GiB a shard.
SHARD_GIB = 30
# Beyond 85 % OpenSearch gives a node no further shards (cluster.routing.allocation.disk.watermark.low), and a merge
# needs room.
DISK_FULL = 0.7
# Beyond 31 GiB Java's pointers take twice the room; the rest of the memory is the page cache's.
MOST_HEAP_GIB = 31
MOST_SHARDS = 1000
# Shares of --busy that are tried: answers may need cores that are less busy, and no plan leaves more of them idle.
BUSY_STEPS = [step / 20 for step in range(20, 3, -1)]


@dataclass(frozen=True, slots=True)
class Working:
    """What encoding and journalling cost, measured elsewhere: milliseconds of a processor, MiB of a process."""

    encode_ms_a_piece: float
    index_ms_a_piece: float  # on data nodes
    journal_ms_a_document: float  # in the API
    worker_mib: float
    api_mib: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: name, value with unit, and how it was found."""

    name: str
    value: float
    unit: str
    formula: str


@dataclass
class Plan:
    """What is needed; `figures` in the order in which they build on each other."""

    figures: list[Figure] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, formula: str) -> float:
        self.figures.append(Figure(name, value, unit, formula))
        return value

    def __getitem__(self, name: str) -> float:
        return next(one.value for one in self.figures if one.name == name)


def planned(need: Need, machine: Machine, of: Coefficients, work: Working) -> Plan:
    """The plan. Raises ConfigurationError (`bad_plan`) for an answer time that no number of shards gives."""
    plan = Plan()
    pieces = plan.add(
        "pieces", need.words * of.pieces_a_word, "a document", f"{need.words:g} words x {of.pieces_a_word:g}"
    )
    _disk(plan, need, of, pieces)
    _shards(plan, need, of)
    _nodes(plan, need, machine, of, work)
    _front(plan, need, of, work)
    _workers(plan, need, work, pieces)
    _money(plan, need, machine)
    return plan


def _disk(plan: Plan, need: Need, of: Coefficients, pieces: float) -> None:
    stored, searched = of.stored.at(pieces), of.searched.at(pieces)
    line = f"{of.stored.floor:.0f} + {of.stored.slope:.2f} x {pieces:.0f} pieces"
    plan.add("document", stored, "bytes", line)
    plan.add("index", need.docs * stored / GIB, "GiB a copy", f"{need.docs:,.0f} documents x {stored:,.0f} bytes")
    copies = 1 + need.replicas
    plan.add(
        "disk", need.docs * stored / GIB * copies / DISK_FULL, "GiB", f"index x {copies} copies / {DISK_FULL:g} full"
    )
    line = f"{need.docs:,.0f} x ({of.searched.floor:.0f} + {of.searched.slope:.2f} x {pieces:.0f} pieces)"
    plan.add("searched", need.docs * searched / GIB, "GiB a copy", f"{line}: what searches read")


def _shards(plan: Plan, need: Need, of: Coefficients) -> None:
    """Shards, and the share of the cores that may be busy: what answers in time with the fewest cores."""
    cost, within = of.search[need.mode], need.p99 * 1000
    by_size = max(1, ceil(plan["index"] / SHARD_GIB))
    found = []
    for busy in (need.busy * step for step in BUSY_STEPS):

        def in_time(shards: int, busy: float = busy) -> bool:
            return of.p99(need.mode, need.docs, shards, busy) <= within

        if in_time(MOST_SHARDS):
            by_time = _least(in_time)
            shards = max(by_size, by_time)
            found.append((cost.node.of(need.docs, shards) / busy, shards, by_time, busy))
    if not found:
        idle = need.busy * BUSY_STEPS[-1]
        least = of.p99(need.mode, need.docs, MOST_SHARDS, idle)
        raise ConfigurationError(
            "bad_plan",
            f"No number of shards up to {MOST_SHARDS} answers within {within:g} ms: even then, and with {idle:.0%} of "
            f"the cores busy, one search in a hundred takes {least:.0f} ms on these machines. "
            "Allow more (--p99), another --mode, or faster cores (--speed).",
        )
    _, shards, by_time, busy = min(found)
    plan.add(
        "shards",
        shards,
        "",
        f"the larger of {by_size} (index / {SHARD_GIB} GiB) and {by_time} (p99 within {within:g} ms)",
    )
    plan.add("busy", busy, "of the cores", f"at most {need.busy:g}; what answers in time with the fewest cores")
    clock = cost.clock
    line = (
        f"{of.at_random:g} x {cost.tail:g} x ({clock.fixed:.2f} + {clock.by_shard:.2f} + "
        f"{clock.by_million:.2f} x million documents of a shard)"
    )
    p99 = of.p99(need.mode, need.docs, shards, busy)
    plan.add("p99", p99, "ms", f"{line} / (1 - {busy:g} busy)")


def _least(holds: Callable[[int], bool]) -> int:
    low, high = 1, MOST_SHARDS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _nodes(plan: Plan, need: Need, machine: Machine, of: Coefficients, work: Working) -> None:
    node, shards, busy = of.search[need.mode].node, int(plan["shards"]), plan["busy"]
    each = node.of(need.docs, shards)
    line = f"{node.fixed:.2f} + {node.by_shard:.2f} x {shards} shards + {node.by_million:.2f} x million documents"
    plan.add("search on data nodes", each, "ms of a core", line)
    writes, copies = need.docs * need.changed / 86_400, 1 + need.replicas
    indexing = plan["pieces"] * work.index_ms_a_piece
    cores = (need.qps * each + writes * indexing * copies) / 1000 / busy
    line = f"({need.qps:g} x {each:.2f} ms + {writes:.1f} documents x {indexing:.2f} ms x {copies})"
    plan.add("cores of data nodes", cores, "", f"{line} / {busy:g} busy")
    heap = min(MOST_HEAP_GIB, machine.memory_gib / 2)
    cached = machine.memory_gib - heap
    by_cores, by_memory = ceil(cores / machine.cores), ceil(plan["searched"] * copies / cached)
    by_shards = ceil(shards / machine.cores)
    plan.add(
        "data nodes",
        max(by_cores, by_memory, by_shards, copies),
        f"of {machine.cores} cores, {machine.memory_gib:g} GiB",
        f"the largest of {by_cores} (cores), {by_memory} (searched x {copies} copies / {cached:g} GiB of page cache "
        f"beside {heap:g} GiB of heap), {by_shards} (a core for each shard of a search), {copies} (copies)",
    )


def _front(plan: Plan, need: Need, of: Coefficients, work: Working) -> None:
    api, busy = of.search[need.mode].api, plan["busy"]
    writes = need.docs * need.changed / 86_400
    cores = (need.qps * api + writes * work.journal_ms_a_document) / 1000 / busy
    line = f"({need.qps:g} searches x {api:.2f} ms + {writes:.1f} documents x {work.journal_ms_a_document:g} ms)"
    processes = max(2, ceil(cores))
    plan.add("API processes", processes, "of a core", f"{line} / {busy:g} busy; 2 at least")
    plan.add("memory of the API", processes * work.api_mib / 1024, "GiB", f"{processes} x {work.api_mib:g} MiB")


def _workers(plan: Plan, need: Need, work: Working, pieces: float) -> None:
    each = pieces * work.encode_ms_a_piece
    plan.add("encoding", each, "ms of a core a document", f"{pieces:.0f} pieces x {work.encode_ms_a_piece:g} ms")
    hours = need.docs * each / 3.6e6
    plan.add("first load", hours, "core hours", f"{need.docs:,.0f} documents x {each:.1f} ms")
    first = ceil(hours / (24 * need.load_days))
    plan.add("workers of the first load", first, "processes of a core", f"first load / {need.load_days:g} days")
    daily = need.docs * need.changed * each / 86_400_000 / need.busy
    steady = max(1, ceil(daily))
    line = f"{need.docs * need.changed:,.0f} documents a day x {each:.1f} ms / {need.busy:g} busy; 1 at least"
    plan.add("workers", steady, "processes of a core", line)
    plan.add("memory of workers", steady * work.worker_mib / 1024, "GiB", f"{steady} x {work.worker_mib:g} MiB")


def _money(plan: Plan, need: Need, machine: Machine) -> None:
    nodes, front = plan["data nodes"], plan["API processes"] + plan["workers"]
    cores = nodes * machine.cores + front
    memory = nodes * machine.memory_gib + plan["memory of the API"] + plan["memory of workers"]
    money = HOURS * (cores * machine.core_hour + memory * machine.gib_hour) + plan["disk"] * machine.disk_gib_month
    plan.add(
        "a month",
        money,
        "of your currency",
        f"{HOURS} h x ({cores:g} cores x {machine.core_hour:g} + {memory:.0f} GiB x {machine.gib_hour:g}) + "
        f"{plan['disk']:,.0f} GiB of disk x {machine.disk_gib_month:g}",
    )
    once = plan["first load"] * machine.core_hour
    plan.add("the first load once", once, "of your currency", f"first load x {machine.core_hour:g}")
    if machine.gpu_documents:
        hours = need.docs / machine.gpu_documents / 3600
        plan.add("or on GPUs", hours, "GPU hours", f"{need.docs:,.0f} documents / {machine.gpu_documents:g} a second")
        plan.add("GPUs once", hours * machine.gpu_hour, "of your currency", f"GPU hours x {machine.gpu_hour:g}")
