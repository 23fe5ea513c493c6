"""Links that play a talk from a time."""

import pytest
from pydantic import ValidationError

from services.index_spec import IndexSpec
from services.talk.parse import build_link


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, "https://a.b/c.mp3?x=1#t=63"),
        ("{url}&t={start}", "https://a.b/c.mp3?x=1#old&t=63"),
        ("/player?src={url}&t={start}", "/player?src=https%3A%2F%2Fa.b%2Fc.mp3%3Fx%3D1%23old&t=63"),
        ("https://p.q/{id}#{start}", "https://p.q/a%2Fb%20%22#63"),
    ],
)
def test_a_link_names_the_talk_and_the_second(template: str | None, expected: str) -> None:
    assert build_link(template, "https://a.b/c.mp3?x=1#old", 'a/b "', 63.9) == expected


def test_without_a_url_there_is_no_link() -> None:
    assert build_link(None, "", "a", 5) is None
    assert build_link("/p/{id}?t={start}", "", "a", None) == "/p/a?t=0"


@pytest.mark.parametrize(
    "template",
    [
        "javascript:play('{id}',{start})", "data:,{id}{start}", "https:{id}{start}", "https://[x/{id}#{start}",
        "/p/{id}", "/p#{start}", "/p/{episode}#{start}", "/p/{id} #{start}", "/p/{id}#{start}}", "{url}{url}#{start}",
        'https://a/"{id}#{start}', "{id}:{url}#{start}", "{url}:{id}#{start}",
    ],
)  # fmt: skip
def test_a_bad_template_is_refused_when_the_index_is_created(template: str) -> None:
    with pytest.raises(ValidationError, match="`link`"):
        IndexSpec.model_validate({"talk": {"link": template}})


def test_a_usable_template_is_kept() -> None:
    spec = IndexSpec.model_validate({"talk": {"link": "/play/{id}?t={start}"}})
    assert spec.talk is not None
    assert spec.talk.link == "/play/{id}?t={start}"
