"""The page where the service asks for keys: it asks for one, keeps it in the tab, and sends it as a header alone."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from services.access.key_text import new_key
from services.settings import Settings
from tests.e2e.page.conftest import Visit

KEY = new_key("a" * 16)


@pytest.fixture
def locked(
    settings: Settings, tmp_path: Path, live_api: Callable[[Settings], AbstractContextManager[str]]
) -> Iterator[str]:
    file = tmp_path / "key"
    file.write_text(KEY)
    with live_api(settings.model_copy(update={"admin_key_file": str(file)})) as base:
        headers = {"authorization": f"Bearer {KEY}"}
        httpx.put(f"{base}/v1/indexes/books", headers=headers, trust_env=False).raise_for_status()
        yield base


def test_a_key_is_asked_for_kept_and_forgotten(locked: str, open_page: Callable[..., Visit]) -> None:
    visit = open_page(locked)
    page = visit.go()
    field = page.get_by_label("Key of the API")
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


def test_who_enters_a_key_is_not_disturbed(locked: str, open_page: Callable[..., Visit]) -> None:
    page = open_page(locked).go("operate")
    field = page.locator("#problem").get_by_label("Key of the API")
    field.press_sequentially(KEY[:20])
    page.wait_for_timeout(3500)  # (it looks again every three seconds)
    expect(field).to_be_focused()
    expect(field).to_have_value(KEY[:20])
    field.press_sequentially(KEY[20:])
    field.press("Enter")
    expect(page.locator("#indexes")).to_contain_text("books")
