"""Rules of an index: the page describes the applied rules and marks pinned hits."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

RULES: dict[str, Any] = {
    "synonyms": [{"from": ["pot"], "to": ["kettle"]}],
    "results": [
        {"query": "a pot", "pin": [{"id": "harbour/no 7?#a", "position": 1}, {"id": "gone", "position": 2}]},
        {"query": "pot", "match": "contains", "hide": ["patience"]},
    ],
    "boosts": [{"filter": {"field": "year", "range": {"lt": 1950}}, "factor": 2}],
    "fields": {"title": 3},
}


@pytest.fixture
def ruled(seeded: str) -> Iterator[None]:
    """Apply these rules to the notes, and remove them at the end."""
    path = f"{seeded}/v1/indexes/notes/curation"
    for rules in (RULES, {}):
        httpx.put(
            path, json={"rules": rules}, headers={"if-match": "*"}, timeout=30, trust_env=False
        ).raise_for_status()
        if rules:
            yield


def test_applied_rules_are_described_and_pinned_hits_marked(ruled: None, visit) -> None:
    page = visit.go("?index=notes&mode=hybrid&q=a+pot")
    first = page.locator(".hit").first
    expect(first.locator(".chip.pinned")).to_have_text("pinned")
    expect(first).to_have_attribute("data-id", "harbour/no 7?#a")
    expect(page.locator(".chip.pinned")).to_have_count(1)
    remark = page.locator(".remark.rules")
    expect(remark).to_have_text(
        "By rules of the index: synonyms of pot; 1 document pinned; 1 document hidden; "
        'factor for year range {"lt":1950}; words of the title count more; '
        "gone is pinned but was not found."
    )
    kettle = page.locator(".hit[data-id=kettle]")
    kettle.get_by_role("button", name="Why").click()
    expect(kettle.locator(".why [data-piece='year range {\"lt\":1950}']").first).to_contain_text("(boost)")
    expect(kettle.locator(".why [data-list=lexical]")).to_contain_text("(title)")
    assert not visit.errors


def test_without_rules_there_is_no_remark(visit) -> None:
    page = visit.go("?index=notes&q=kettle")
    expect(page.locator(".hit").first).to_be_visible()
    expect(page.locator(".remark.rules")).to_have_count(0)
