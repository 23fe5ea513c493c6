"""What is asked of a system, and what a machine is. Pure."""

from dataclasses import dataclass

from services.errors import ConfigurationError

_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class Need:
    """`qps` searches a second at the busiest time, answered within `p99` seconds but for one in a hundred.

    `words` of a document on average; `changed` documents written anew a day; `load_days` for the first load; `replicas`
    further copies; `busy` the share of cores that is used at the busiest time, at most.
    """

    docs: float
    qps: float
    p99: float
    words: float = 200
    mode: str = "hybrid"
    changed: float = 0.01  # of all documents, a day
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
                raise ConfigurationError("bad_plan", f"{name} is out of what can be planned.")


@dataclass(frozen=True, slots=True)
class Machine:
    """A data node, and prices in one currency: examples, not offers."""

    cores: int = 8
    memory_gib: float = 32
    core_hour: float = 0.04
    gib_hour: float = 0.005  # memory
    disk_gib_month: float = 0.10
    gpu_documents: float = 0  # a second on one GPU, where somebody measured it
    gpu_hour: float = 2.5


def amount(text: str, name: str) -> float:
    """A number with k, M or G behind it: `50M`. Raises ConfigurationError (`bad_plan`)."""
    cut = text.strip().lower()
    end = cut[-1:] if cut[-1:].isalpha() else ""
    try:
        return _finite(float(cut[: len(cut) - len(end)].replace("_", "").replace(",", ""))) * _SUFFIXES[end]
    except (ValueError, KeyError):
        raise ConfigurationError("bad_plan", f"{name} {text!r} is not a number, or one with k, M or G.") from None


def duration(text: str, name: str) -> float:
    """Seconds of `50ms`, `2s`, `3d`. Raises ConfigurationError (`bad_plan`)."""
    cut = text.strip().lower()
    number = cut.rstrip("mshd")
    try:
        return _finite(float(number)) * _SECONDS[cut[len(number) :]]
    except (ValueError, KeyError):
        raise ConfigurationError("bad_plan", f"{name} {text!r} is not a time such as 50ms or 3d.") from None


def _finite(value: float) -> float:
    if not abs(value) < float("inf"):
        raise ValueError(value)
    return value
