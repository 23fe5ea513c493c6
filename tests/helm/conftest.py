"""Releases of the chart, rendered once for all tests of a run."""

import pytest

from infra.helm.rendering import ChartError, RenderedRelease, list_cases, load_case_values, render_releases


@pytest.fixture(scope="session")
def releases() -> dict[str, RenderedRelease]:
    """Render a release for each file in the chart's ci/."""
    names = list_cases()
    answers = dict(zip(names, render_releases(*map(load_case_values, names)), strict=True))
    failed = {name: answer for name, answer in answers.items() if isinstance(answer, ChartError)}
    assert not failed
    return {name: answer for name, answer in answers.items() if isinstance(answer, RenderedRelease)}
