"""Plans grow with the requirements, state their formulas, and refuse impossible requirements."""

from dataclasses import replace

import pytest

from cli.planning import (
    MAX_SHARD_GIB,
    MODES,
    CapacityNeed,
    Coefficients,
    Cost,
    IngestCosts,
    LinearCost,
    Machine,
    SearchCost,
    make_plan,
    parse_amount,
    parse_duration,
)
from services.errors import ConfigurationError

COST = SearchCost(Cost(1.5, 0.8, 30), 0.9, Cost(2, 0.5, 25), 2.5)
OF = Coefficients(1.3, LinearCost(900, 20), LinearCost(300, 8), dict.fromkeys(MODES, COST), 2)
WORK = IngestCosts(0.13, 0.009, 0.2, 421, 135)
NEED = CapacityNeed(docs=50e6, qps=300, p99=0.4)


def figures(need: CapacityNeed = NEED, machine: Machine | None = None) -> dict[str, float]:
    found = make_plan(need, machine or Machine(), OF, WORK)
    assert all(one.formula for one in found.figures)
    return {one.name: one.value for one in found.figures}


def test_the_formulas_hold() -> None:
    found = figures()
    assert found["pieces"] == 260
    assert found["document"] == 900 + 20 * 260
    assert found["index"] == pytest.approx(50e6 * 6100 / 1024**3)
    assert found["shards"] >= found["index"] / MAX_SHARD_GIB
    assert found["p99"] <= 400
    assert found["search on data nodes"] == pytest.approx(1.5 + 0.8 * found["shards"] + 1500)
    assert found["first load"] == pytest.approx(50e6 * 260 * 0.13 / 3.6e6)


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"docs": 500e6}, "disk"),
        ({"qps": 3000}, "cores of data nodes"),
        ({"p99": 0.06}, "shards"),
        ({"words": 400}, "first load"),
        ({"replicas": 2}, "disk"),
        ({"busy": 0.05}, "API processes"),
        ({"changed": 0.5}, "workers"),
        ({"load_days": 0.5}, "workers of the first load"),
    ],
)
def test_a_larger_need_costs_more(more: dict[str, float], name: str) -> None:
    assert figures(replace(NEED, **more))[name] > figures()[name]  # type: ignore[arg-type]


def test_one_shard_less_than_planned_is_too_slow() -> None:
    need = replace(NEED, p99=0.06)
    found = figures(need)
    assert OF.p99("hybrid", need.docs, int(found["shards"]) - 1, found["busy"]) > need.p99 * 1000
    assert OF.p99("hybrid", need.docs, int(found["shards"]), found["busy"]) <= need.p99 * 1000


def test_cores_are_less_busy_only_if_the_latency_needs_it() -> None:
    """If busy cores answer too late, the plan has more cores. It never exceeds the allowed share."""
    assert figures()["busy"] == NEED.busy
    hurried = figures(replace(NEED, p99=0.025))
    assert hurried["busy"] < NEED.busy
    assert hurried["p99"] <= 25
    assert hurried["cores of data nodes"] > figures()["cores of data nodes"]


def test_an_unreachable_latency_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="No number of shards") as caught:
        figures(replace(NEED, p99=0.010))
    assert caught.value.code == "bad_plan"


def test_each_copy_needs_a_node() -> None:
    assert figures(CapacityNeed(docs=1000, qps=1, p99=1, replicas=4))["data nodes"] == 5


def test_gpus_are_planned_only_from_a_measured_rate() -> None:
    assert "or on GPUs" not in figures()
    found = figures(machine=Machine(gpu_documents=1000, gpu_hour=3))
    assert found["or on GPUs"] == pytest.approx(50e6 / 1000 / 3600)
    assert found["GPUs once"] == pytest.approx(3 * found["or on GPUs"])


@pytest.mark.parametrize(("text", "value"), [("50M", 50e6), ("1.5k", 1500), ("2G", 2e9), ("7", 7), ("10_000", 10_000)])
def test_amounts(text: str, value: float) -> None:
    assert parse_amount(text, "--docs") == value


@pytest.mark.parametrize(("text", "value"), [("50ms", 0.05), ("2s", 2), ("3d", 259_200)])
def test_durations(text: str, value: float) -> None:
    assert parse_duration(text, "--p99") == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "many", "5x", "nan", "infM", "M", "1e999"])
def test_bad_amounts_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--docs"):
        parse_amount(text, "--docs")
    with pytest.raises(ConfigurationError, match="--p99"):
        parse_duration(text, "--p99")


@pytest.mark.parametrize("wrong", [{"docs": 0}, {"qps": -1}, {"busy": 1}, {"replicas": -1}, {"changed": 2}])
def test_needs_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="out of the range"):
        replace(NEED, **wrong)  # type: ignore[arg-type]


def test_shards_of_a_search_have_a_core_each() -> None:
    """The latency assumes that shards do not wait for each other."""
    found = figures(replace(NEED, docs=5e6, qps=0.1, p99=0.03))
    assert found["shards"] > found["cores of data nodes"]
    assert found["data nodes"] * Machine().cores >= found["shards"]
