"""API keys on the page: it asks for a key, stores it in the session of the tab and sends it only as a header."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Route, expect

from services.access.api_keys import generate_key
from services.settings import Settings
from tests.e2e.page.conftest import Visit

KEY = generate_key("a" * 16)


@pytest.fixture
def locked(
    settings: Settings, tmp_path: Path, live_api: Callable[[Settings], AbstractContextManager[str]]
) -> Iterator[str]:
    file = tmp_path / "key"
    file.write_text(KEY)
    with live_api(settings.model_copy(update={"admin_key_file": str(file)})) as base:
        headers = {"authorization": f"Bearer {KEY}"}
        httpx.put(f"{base}/v1/indexes/books", headers=headers, trust_env=False, timeout=30).raise_for_status()
        yield base


def test_a_key_is_requested_stored_and_forgotten(locked: str, open_page: Callable[..., Visit]) -> None:
    visit = open_page(locked)
    page = visit.go()
    field = page.get_by_label("API key")
    expect(page.get_by_text("no_credentials")).to_be_visible()
    field.fill(KEY[:-1])
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_text("bad_key")).to_be_visible()
    field.fill(f" {KEY} ")
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#index")).to_have_value("books")
    expect(field).to_have_count(0)
    page.goto(f"{locked}/operate")
    expect(page.locator("#indexes")).to_contain_text("books")
    assert not any(KEY[30:] in url for url in visit.requests)
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
    page.evaluate("sessionStorage.setItem('sparsewell.key', 'wrong')")
    page.goto(locked)
    page.get_by_role("button", name="Forget the key").click()
    expect(page.get_by_text("no_credentials")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_key_with_a_filter_shows_only_its_documents(locked: str, open_page: Callable[..., Visit]) -> None:
    """Check each request that the page sends: hits, facets, counts, titles, and a document by its address."""
    administrator = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=locked, headers=administrator, trust_env=False, timeout=30) as admin:
        admin.put("/v1/indexes/shared", json={"fields": {"tenant": "keyword"}}).raise_for_status()
        documents = [
            {
                "id": one,
                "title": f"Storm {one}",
                "text": f"A storm of {one}",
                "metadata": {"tenant": f"tenant {one[4]}"},
            }
            for one in ("marka0x", "marka1x", "markb0x", "markb1x")
        ]
        sent = admin.post("/v1/indexes/shared/documents", json=documents).raise_for_status().json()
        admin.get(f"/v1/jobs/{sent['job']['id']}").raise_for_status()  # the job status refreshes the index
        request = {"name": "a", "scopes": ["search"], "filter": {"field": "tenant", "is": "tenant a"}}
        key = admin.post("/v1/keys", json=request).raise_for_status().json()["key"]

    def seen(key: str, hits: int) -> str:
        """Return all responses and page contents of one visit to each view."""
        page, told = open_page(locked).go(), []

        def tell(route: Route) -> None:
            answer = route.fetch()
            told.append(answer.text())
            route.fulfill(response=answer)

        page.route("**/v1/**", tell)
        page.evaluate("key => sessionStorage.setItem('sparsewell.key', key)", key)
        page.goto(f"{locked}/?index=shared&q=storm&mode=lexical")
        expect(page.locator(".hit")).to_have_count(hits)
        told.append(page.content())
        page.goto(f"{locked}/?index=shared")  # the state and the facets of the index
        expect(page.locator("#index-state")).to_contain_text(f"{hits} documents")
        told.append(page.content())
        page.get_by_role("combobox", name="Query").press_sequentially("sto")
        expect(page.get_by_role("listbox", name="Suggestions").get_by_role("option")).to_have_count(hits)
        told.append(page.content())
        # (the address repeats the id in the query, so this visit asks for the other document)
        page.goto(f"{locked}/?index=shared&doc=markb0x")
        expect(page.get_by_role("dialog")).to_contain_text("A storm of markb0x" if hits == 4 else "document_not_found")
        page.goto(f"{locked}/operate")
        expect(page.get_by_text("insufficient_scope") if hits == 2 else page.locator("#indexes")).to_be_visible()
        page.unroute_all(behavior="wait")
        return "\n".join(told)

    told = seen(key, 2)
    assert "markb1x" not in told and "tenant b" not in told and "A storm of markb0x" not in told
    told = seen(KEY, 4)
    assert "markb1x" in told and "tenant b" in told and "A storm of markb0x" in told, "the control"


def test_refreshing_does_not_interrupt_entering_a_key(locked: str, open_page: Callable[..., Visit]) -> None:
    page = open_page(locked).go("operate")
    field = page.locator("#problem").get_by_label("API key")
    field.press_sequentially(KEY[:20])
    page.wait_for_timeout(3500)  # (the page refreshes every three seconds)
    expect(field).to_be_focused()
    expect(field).to_have_value(KEY[:20])
    field.press_sequentially(KEY[20:])
    field.press("Enter")
    expect(page.locator("#indexes")).to_contain_text("books")
