"""Capacity planning: machines for a need, from measured coefficients. Pure.

bytes of a document   = floor + slope * pieces
CPU time of a search  = fixed + by_shard * shards + by_million * documents / 10^6               (ms, on data nodes)
latency of a search   = fixed + by_shard * turns + by_million * documents of a shard / 10^6     (ms, without load)

The shards of a search run in parallel. With fewer cores than shards they take turns: the measurement (two cores) counts
a turn for each shard, and a plan, which has a core for each shard, counts one turn. docs/capacity.md has the
measurements and the errors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil

from services.errors import ConfigurationError

MODES = ("sparse", "lexical", "hybrid")
MILLION = 1e6
GIB = 1024**3
HOURS_PER_MONTH = 730
# OpenSearch recommends 10 to 30 GiB per shard for search.
MAX_SHARD_GIB = 30
# OpenSearch allocates no shards to a node above 85 % (cluster.routing.allocation.disk.watermark.low), and a merge needs
# disk space.
MAX_DISK_SHARE = 0.7
# Above 31 GiB of heap, Java's pointers need twice the space. The rest of the memory is page cache.
MAX_HEAP_GIB = 31
MAX_SHARDS_PER_NODE = 1000
# Shares of --busy that a plan tries: a short latency may need less busy cores.
BUSY_SHARES = [step / 20 for step in range(20, 3, -1)]
_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class LinearCost:
    """A cost that is linear in x: floor + slope * x."""

    floor: float
    slope: float

    def at(self, x: float) -> float:
        """Return the cost at x."""
        return self.floor + self.slope * x


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds of a search: CPU time or latency."""

    fixed: float
    by_shard: float
    by_million: float

    def of(self, documents: float, shards: int) -> float:
        """Return the milliseconds for a number of documents and shards."""
        return self.fixed + self.by_shard * shards + self.by_million * documents / MILLION

    def faster(self, speed: float) -> "Cost":
        """Return the cost on cores of a relative speed."""
        return Cost(self.fixed / speed, self.by_shard / speed, self.by_million / speed)


@dataclass(frozen=True, slots=True)
class SearchCost:
    """Costs of a search in one mode, in milliseconds; see the module for the formulas.

    `node` is the CPU time of the data nodes, `api` the CPU time of the API, `clock` the latency without load, and
    `tail` the ratio of p99 to p50 of the latency.
    """

    node: Cost
    api: float
    clock: Cost
    tail: float

    def p50(self, documents: float, shards: int, turns: int = 1) -> float:
        """Return the median latency without load, in milliseconds."""
        return self.clock.of(documents / shards, turns)


@dataclass(frozen=True, slots=True)
class Coefficients:
    """All fitted coefficients. `stored` and `searched` are bytes of one copy of a document by its pieces.

    `at_random` is the ratio of p99 with random arrivals to p99 with one search after another, without the queueing
    factor 1 / (1 - busy).
    """

    pieces_a_word: float
    stored: LinearCost
    searched: LinearCost
    search: Mapping[str, SearchCost]
    at_random: float

    def p99(self, mode: str, documents: float, shards: int, busy: float) -> float:
        """Return the 99th percentile of the latency in milliseconds, with a share of the cores busy."""
        cost = self.search[mode]
        return self.at_random * cost.tail * cost.p50(documents, shards) * queueing_factor(busy)


@dataclass(frozen=True, slots=True)
class IngestCosts:
    """Costs of encoding and journalling, from other benchmarks: milliseconds of CPU time, MiB of a process."""

    encode_ms_a_piece: float
    index_ms_a_piece: float  # on data nodes
    journal_ms_a_document: float  # in the API
    worker_mib: float
    api_mib: float


@dataclass(frozen=True, slots=True)
class CapacityNeed:
    """Requirements of a deployment: `qps` searches per second at peak, 99 of 100 of them answered in `p99` seconds.

    `words` is the average length of a document, `changed` the share of documents that changes per day, `load_days` the
    time for the first load, `replicas` the number of further copies, and `busy` the maximum share of the cores in use
    at peak. Raises ConfigurationError (`bad_plan`) for a value out of range.
    """

    docs: float
    qps: float
    p99: float
    words: float = 200
    mode: str = "hybrid"
    changed: float = 0.01
    load_days: float = 3
    replicas: int = 1
    busy: float = 0.5

    def __post_init__(self) -> None:
        checks = {
            "--docs": 1 <= self.docs <= 1e12,
            "--qps": 0 < self.qps <= 1e6,
            "--p99": 0 < self.p99 <= 60,
            "--words": 1 <= self.words <= 1e6,
            "--changed": 0 <= self.changed <= 1,
            "--load-days": 0 < self.load_days <= 3650,
            "--replicas": 0 <= self.replicas <= 20,
            "--busy": 0 < self.busy <= 0.9,
        }
        for name, holds in checks.items():
            if not holds:
                raise ConfigurationError("bad_plan", f"{name} is out of the range that can be planned.")


@dataclass(frozen=True, slots=True)
class Machine:
    """A data node, and prices in one currency. The defaults are examples, not offers."""

    cores: int = 8
    memory_gib: float = 32
    core_hour: float = 0.04
    gib_hour: float = 0.005  # memory
    disk_gib_month: float = 0.10
    gpu_documents: float = 0  # documents that one GPU encodes per second, if measured
    gpu_hour: float = 2.5


@dataclass(frozen=True, slots=True)
class PlanFigure:
    """A figure of a plan: name, value with unit, and formula."""

    name: str
    value: float
    unit: str
    formula: str


@dataclass
class CapacityPlan:
    """The figures of a plan. A formula refers to earlier figures."""

    figures: list[PlanFigure] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, formula: str) -> float:
        """Append a figure and return its value."""
        self.figures.append(PlanFigure(name, value, unit, formula))
        return value

    def __getitem__(self, name: str) -> float:
        return next(figure.value for figure in self.figures if figure.name == name)


def make_plan(need: CapacityNeed, machine: Machine, coefficients: Coefficients, work: IngestCosts) -> CapacityPlan:
    """Plan a deployment. Raises ConfigurationError (`bad_plan`) for a latency that no number of shards reaches."""
    plan = CapacityPlan()
    pieces = plan.add(
        "pieces",
        need.words * coefficients.pieces_a_word,
        "a document",
        f"{need.words:g} words x {coefficients.pieces_a_word:g}",
    )
    _plan_disk(plan, need, coefficients, pieces)
    _plan_shards(plan, need, coefficients)
    _plan_nodes(plan, need, machine, coefficients, work)
    _plan_api(plan, need, coefficients, work)
    _plan_workers(plan, need, work, pieces)
    _plan_price(plan, need, machine)
    return plan


def _plan_disk(plan: CapacityPlan, need: CapacityNeed, coefficients: Coefficients, pieces: float) -> None:
    stored, searched = coefficients.stored.at(pieces), coefficients.searched.at(pieces)
    line = f"{coefficients.stored.floor:.0f} + {coefficients.stored.slope:.2f} x {pieces:.0f} pieces"
    plan.add("document", stored, "bytes", line)
    plan.add("index", need.docs * stored / GIB, "GiB a copy", f"{need.docs:,.0f} documents x {stored:,.0f} bytes")
    copies = 1 + need.replicas
    plan.add(
        "disk",
        need.docs * stored / GIB * copies / MAX_DISK_SHARE,
        "GiB",
        f"index x {copies} copies / {MAX_DISK_SHARE:g} full",
    )
    cost = coefficients.searched
    line = f"{need.docs:,.0f} x ({cost.floor:.0f} + {cost.slope:.2f} x {pieces:.0f} pieces)"
    plan.add("searched", need.docs * searched / GIB, "GiB a copy", f"{line}: what searches read")


def _plan_shards(plan: CapacityPlan, need: CapacityNeed, coefficients: Coefficients) -> None:
    """Add the number of shards and the busy share of the cores that reach the latency with the fewest cores."""
    cost, within = coefficients.search[need.mode], need.p99 * 1000
    by_size = max(1, ceil(plan["index"] / MAX_SHARD_GIB))
    options = []
    for busy in (need.busy * step for step in BUSY_SHARES):

        def in_time(shards: int, busy: float = busy) -> bool:
            return coefficients.p99(need.mode, need.docs, shards, busy) <= within

        if in_time(MAX_SHARDS_PER_NODE):
            by_time = _smallest_count(in_time)
            shards = max(by_size, by_time)
            options.append((cost.node.of(need.docs, shards) / busy, shards, by_time, busy))
    if not options:
        lowest_busy = need.busy * BUSY_SHARES[-1]
        best = coefficients.p99(need.mode, need.docs, MAX_SHARDS_PER_NODE, lowest_busy)
        raise ConfigurationError(
            "bad_plan",
            f"No number of shards has a p99 of {within:g} ms. With {MAX_SHARDS_PER_NODE} shards and {lowest_busy:.0%} "
            f"of the cores busy, p99 is {best:.0f} ms on these machines. Raise --p99, change --mode, or use faster "
            "cores (--speed).",
        )
    _, shards, by_time, busy = min(options)
    plan.add(
        "shards",
        shards,
        "",
        f"the larger of {by_size} (index / {MAX_SHARD_GIB} GiB) and {by_time} (p99 within {within:g} ms)",
    )
    plan.add("busy", busy, "of the cores", f"at most {need.busy:g}; reaches p99 with the fewest cores")
    clock = cost.clock
    line = (
        f"{coefficients.at_random:g} x {cost.tail:g} x ({clock.fixed:.2f} + {clock.by_shard:.2f} + "
        f"{clock.by_million:.2f} x million documents of a shard)"
    )
    p99 = coefficients.p99(need.mode, need.docs, shards, busy)
    plan.add("p99", p99, "ms", f"{line} / (1 - {busy:g} busy)")


def _smallest_count(holds: Callable[[int], bool]) -> int:
    low, high = 1, MAX_SHARDS_PER_NODE
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _plan_nodes(
    plan: CapacityPlan, need: CapacityNeed, machine: Machine, coefficients: Coefficients, work: IngestCosts
) -> None:
    node, shards, busy = coefficients.search[need.mode].node, int(plan["shards"]), plan["busy"]
    each = node.of(need.docs, shards)
    line = f"{node.fixed:.2f} + {node.by_shard:.2f} x {shards} shards + {node.by_million:.2f} x million documents"
    plan.add("search on data nodes", each, "ms of a core", line)
    writes, copies = need.docs * need.changed / 86_400, 1 + need.replicas
    indexing = plan["pieces"] * work.index_ms_a_piece
    cores = (need.qps * each + writes * indexing * copies) / 1000 / busy
    line = f"({need.qps:g} x {each:.2f} ms + {writes:.1f} documents x {indexing:.2f} ms x {copies})"
    plan.add("cores of data nodes", cores, "", f"{line} / {busy:g} busy")
    heap = min(MAX_HEAP_GIB, machine.memory_gib / 2)
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


def _plan_api(plan: CapacityPlan, need: CapacityNeed, coefficients: Coefficients, work: IngestCosts) -> None:
    api, busy = coefficients.search[need.mode].api, plan["busy"]
    writes = need.docs * need.changed / 86_400
    cores = (need.qps * api + writes * work.journal_ms_a_document) / 1000 / busy
    line = f"({need.qps:g} searches x {api:.2f} ms + {writes:.1f} documents x {work.journal_ms_a_document:g} ms)"
    processes = max(2, ceil(cores))
    plan.add("API processes", processes, "of a core", f"{line} / {busy:g} busy; 2 at least")
    plan.add("memory of the API", processes * work.api_mib / 1024, "GiB", f"{processes} x {work.api_mib:g} MiB")


def _plan_workers(plan: CapacityPlan, need: CapacityNeed, work: IngestCosts, pieces: float) -> None:
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


def _plan_price(plan: CapacityPlan, need: CapacityNeed, machine: Machine) -> None:
    nodes, front = plan["data nodes"], plan["API processes"] + plan["workers"]
    cores = nodes * machine.cores + front
    memory = nodes * machine.memory_gib + plan["memory of the API"] + plan["memory of workers"]
    money = (
        HOURS_PER_MONTH * (cores * machine.core_hour + memory * machine.gib_hour)
        + plan["disk"] * machine.disk_gib_month
    )
    plan.add(
        "a month",
        money,
        "of your currency",
        f"{HOURS_PER_MONTH} h x ({cores:g} cores x {machine.core_hour:g} + {memory:.0f} GiB x {machine.gib_hour:g}) + "
        f"{plan['disk']:,.0f} GiB of disk x {machine.disk_gib_month:g}",
    )
    once = plan["first load"] * machine.core_hour
    plan.add("the first load once", once, "of your currency", f"first load x {machine.core_hour:g}")
    if machine.gpu_documents:
        hours = need.docs / machine.gpu_documents / 3600
        plan.add("or on GPUs", hours, "GPU hours", f"{need.docs:,.0f} documents / {machine.gpu_documents:g} a second")
        plan.add("GPUs once", hours * machine.gpu_hour, "of your currency", f"GPU hours x {machine.gpu_hour:g}")


def queueing_factor(busy: float) -> float:
    """Return the ratio of the latency with a share of the cores busy to the latency without load: 1 / (1 - busy)."""
    return 1 / (1 - busy)


def parse_amount(text: str, name: str) -> float:
    """Parse a number with an optional suffix k, M or G, as `50M`. Raises ConfigurationError (`bad_plan`)."""
    plain = text.strip().lower()
    suffix = plain[-1:] if plain[-1:].isalpha() else ""
    digits = plain.removesuffix(suffix).replace("_", "").replace(",", "")
    try:
        return _require_finite(float(digits)) * _SUFFIXES[suffix]
    except (ValueError, KeyError):
        raise ConfigurationError("bad_plan", f"{name} {text!r} is not a number such as 500, 50k or 3M.") from None


def parse_duration(text: str, name: str) -> float:
    """Parse a duration such as `50ms`, `2s` or `3d` to seconds. Raises ConfigurationError (`bad_plan`)."""
    plain = text.strip().lower()
    digits = plain.rstrip("mshd")
    try:
        return _require_finite(float(digits)) * _SECONDS[plain[len(digits) :]]
    except (ValueError, KeyError):
        raise ConfigurationError("bad_plan", f"{name} {text!r} is not a time such as 50ms or 3d.") from None


def _require_finite(value: float) -> float:
    if not abs(value) < float("inf"):
        raise ValueError(value)
    return value
