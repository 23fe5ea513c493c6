"""Releases of the chart, rendered once for all tests of a run."""

import pytest

from infra.helm.rendering import ChartError, Rendered, case, cases, render


@pytest.fixture(scope="session")
def releases() -> dict[str, Rendered]:
    """Of each file in the chart's ci/."""
    names = cases()
    answers = dict(zip(names, render(*map(case, names)), strict=True))
    failed = {name: answer for name, answer in answers.items() if isinstance(answer, ChartError)}
    assert not failed
    return {name: answer for name, answer in answers.items() if isinstance(answer, Rendered)}
