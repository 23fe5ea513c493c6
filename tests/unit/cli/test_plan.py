"""`sparsewell plan` with coefficients from a file."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.capacity_fit import make_coefficients
from cli.main import app
from cli.plan import SHIPPED_FILE
from cli.planning import MODES, Coefficients, Cost, IngestCosts, LinearCost, SearchCost
from services.errors import ConfigurationError

COST = SearchCost(Cost(1.5, 0.8, 30), 0.9, Cost(2, 0.5, 25), 2.5)
OF = Coefficients(1.3, LinearCost(900, 20), LinearCost(300, 8), dict.fromkeys(MODES, COST), 2)


@pytest.fixture
def plan(tmp_path: Path) -> list[str]:
    path = tmp_path / "coefficients.json"
    kept = {
        "measured_on": "2 cores, OpenSearch 3.6.0",
        "coefficients": asdict(OF),
        "working": asdict(IngestCosts(0.13, 0.009, 0.2, 421, 135)),
    }
    path.write_text(json.dumps(kept))
    return ["plan", "--coefficients", str(path), "--docs", "5M", "--qps", "50", "--p99", "2s"]


def test_the_shipped_coefficients_are_the_default() -> None:
    """Check the guide's example, and the coefficients against the committed results."""
    found = figures(["plan", "--docs", "50M", "--qps", "300", "--p99", "50ms"])
    assert found["p99"] <= 50
    assert found["data nodes"] * 8 >= found["cores of data nodes"]
    assert json.loads(SHIPPED_FILE.read_text()) == make_coefficients()


def test_predictions_of_held_out_points_are_near() -> None:
    """Check the bounds that the guide states."""
    kept = json.loads(SHIPPED_FILE.read_text())
    for name, row in kept["predicted_over_measured"].items():
        assert all(0.8 <= value <= 1.3 for value in row.values()), name
    assert all(0.8 <= value <= 1.3 for value in kept["predicted_over_measured_p99_at_a_rate"].values())


def figures(plan: list[str], *options: str) -> dict[str, float]:
    done = CliRunner().invoke(app, [*plan, *options, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return {one["name"]: one["value"] for one in json.loads(done.output)["figures"]}


@pytest.mark.parametrize("content", ["", "{}", '{"coefficients": 1}', None])
def test_a_file_without_coefficients_is_refused(plan: list[str], content: str | None) -> None:
    path = Path(plan[2])
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        CliRunner().invoke(app, plan, catch_exceptions=False)
    assert caught.value.code == "bad_coefficients"


def test_each_figure_is_shown_with_its_formula(plan: list[str]) -> None:
    done = CliRunner().invoke(app, [*plan])
    assert done.exit_code == 0, done.output
    for name in ("shards", "data nodes", "disk", "API processes", "first load", "a month"):
        assert f"{name}  " in done.output
    assert done.output.count("   = ") >= 15
    assert "OpenSearch" in done.output.splitlines()[-1], "what it was measured on"
    bare = CliRunner().invoke(app, [*plan, "--no-formulas"])
    assert "   = " not in bare.output


def test_faster_cores_need_fewer_hours(plan: list[str]) -> None:
    assert figures(plan, "--speed", "2")["first load"] == pytest.approx(figures(plan)["first load"] / 2, rel=1e-6)


def test_prices_come_from_the_options(plan: list[str]) -> None:
    free = figures(plan, "--core-hour", "0", "--gib-hour", "0", "--disk-month", "0")
    assert free["a month"] == 0
    assert figures(plan)["a month"] > 0


@pytest.mark.parametrize(
    "wrong",
    [("--docs", "lots"), ("--p99", "fast"), ("--mode", "magic"), ("--busy", "1"), ("--p99", "1ms"), ("--qps", "0")],
)
def test_a_need_that_cannot_be_planned_is_refused(plan: list[str], wrong: tuple[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        CliRunner().invoke(app, [*plan, *wrong], catch_exceptions=False)
    assert caught.value.code == "bad_plan"
