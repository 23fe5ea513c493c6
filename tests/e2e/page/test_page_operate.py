"""The operator's page: indexes by state, queues, workers, generations, dead letters and their retries."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from services.index_spec import IndexNames
from services.opensearch.bulk import WriteOutcome, write_bulk
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import read_generation, refresh_call, resolve_alias_call
from services.opensearch.journal import dead_write, get_documents_call, read_stored_documents
from services.queue.worker_registry import WorkerRegistry
from services.settings import Settings

HOSTILE = '<img src=x onerror="window.hacked=1">'


@dataclass
class Ward:
    """An API with documents, and a way to make some of them dead."""

    api: httpx.Client
    search: SyncSearchClient
    settings: Settings

    def put(self, index: str, documents: list[dict[str, Any]]) -> None:
        self.api.put(f"/v1/indexes/{index}", json={}).raise_for_status()
        self.api.post(f"/v1/indexes/{index}/documents", json=documents).raise_for_status()

    def die(self, index: str, *names: str, code: str = "encoding_failed", reason: str = "RuntimeError: x") -> None:
        """Mark a document as dead, as a worker does after three attempts."""
        generation = read_generation(
            self.search.send(resolve_alias_call(IndexNames(self.settings.index_prefix), index)), index
        )
        found = read_stored_documents(self.search.send(get_documents_call(generation.physical, names)))
        tried = [replace(one, source=one.source | {"attempts": 3}) for one in found]
        verdicts = write_bulk(self.search, [dead_write(generation, one, code, reason) for one in tried], 1024**2, 10)
        assert {verdict.outcome for verdict in verdicts} == {WriteOutcome.STORED}
        self.search.send(refresh_call(generation.physical))

    def states(self, index: str) -> dict[str, int]:
        counts: dict[str, int] = self.api.get(f"/v1/indexes/{index}").json()["documents"]
        return counts


@pytest.fixture
def ward(api: httpx.Client, settings: Settings) -> Iterator[Ward]:
    """Create two indexes: `papers` with 26 documents, three of them dead, and `well` without dead letters."""
    with closing(SyncSearchClient(settings)) as search:
        one = Ward(api, search, settings)
        papers = [{"id": f"d{n:02}", "title": f"Paper {n}", "text": "words"} for n in range(24)]
        papers.append({"id": "a/b?c#d", "text": "words", "version": 7})
        papers.append({"id": HOSTILE, "title": f"<script>window.hacked=1</script>{HOSTILE}", "text": "words"})
        one.put("papers", papers)
        one.put("well", [{"id": "w", "text": "words"}])
        one.die("papers", "d00", code="attempts_exhausted", reason="Its encoding began 3 times and never ended.")
        one.die("papers", "a/b?c#d")
        one.die("papers", HOSTILE, reason=f"RuntimeError: {HOSTILE}<svg onload=window.hacked=1>")
        yield one


@pytest.fixture
def go(ward: Ward, api_url: str, open_page: Callable[..., Any]) -> Callable[..., Page]:
    """Open the view."""

    def opened(address: str = "", **options: Any) -> Page:
        page: Page = open_page(api_url, **options).go(f"operate{address}")
        return page

    return opened


def letter(page: Page, document: str):
    return page.locator(".letter").and_(page.locator(f"[data-id='{document}']"))


def cells(page: Page, index: str):
    return page.locator(f"tr[data-index='{index}'] :is(th, td:not(.share))")


def test_indexes_by_state_the_queue_and_the_dead_with_their_reasons(go, ward: Ward) -> None:
    page = go()
    expect(page.locator(".letter")).to_have_count(3)  # the page shows the index with the most dead letters
    assert page.get_by_role("heading", name="Dead letters of papers").is_visible()
    # the test waits: counts show the searchable state, up to a second late, and the page refreshes
    expect(cells(page, "papers")).to_have_text(["papers", "26", "0", "23", "3", "0"])
    expect(cells(page, "well")).to_have_text(["well", "1", "0", "1", "0", "0"])
    expect(page.locator("tr[aria-current]")).to_have_attribute("data-index", "papers")
    facts = page.locator(".fact").all_inner_texts()
    assert facts[0].startswith("Search\nReady")
    assert re.fullmatch(r"Queue\n2 messages waiting\nRedis is reachable", facts[1])
    assert facts[2].startswith("Encoder\nstandin")
    # the latest death comes first
    names = [article.get_attribute("data-id") for article in page.locator(".letter").all()]
    assert names == [HOSTILE, "a/b?c#d", "d00"]
    first = letter(page, "d00")
    expect(first.get_by_role("heading")).to_have_text("Paper 0")
    expect(first.locator(".cause")).to_have_text("attempts_exhaustedIts encoding began 3 times and never ended.")
    chips = first.locator(".chip").all_inner_texts()
    assert chips[:2] == ["d00", "attempts 3"]
    assert chips[2].startswith("died ")
    assert letter(page, "a/b?c#d").locator(".chip").all_inner_texts()[-1] == "version 7"


def test_retry_one(go, ward: Ward) -> None:
    page = go()
    letter(page, "a/b?c#d").get_by_role("button", name="Retry a/b?c#d").click()
    expect(letter(page, "a/b?c#d")).to_have_count(0)
    expect(page.locator("#status")).to_have_text("1 document pending again.")
    assert ward.api.get("/v1/indexes/papers/documents/a%2Fb%3Fc%23d").json()["earlier"]["retries"] == 1
    expect(page.locator("#letters-count")).to_have_text("2 documents")
    # The focused letter is gone, so the next letter has the focus.
    expect(page.locator(".letter:focus")).to_have_attribute("data-id", "d00")
    # The document dies again. The page notices and shows the earlier failure.
    ward.die("papers", "a/b?c#d", reason="RuntimeError: y")
    again = letter(page, "a/b?c#d")
    expect(again.locator(".before")).to_have_text(
        "Retried once, after 3 attempts; it had failed with encoding_failed: RuntimeError: x"
    )
    expect(again.locator(".cause")).to_contain_text("RuntimeError: y")


def test_retry_all(go, ward: Ward) -> None:
    page = go()
    expect(page.locator(".letter")).to_have_count(3)
    page.get_by_role("button", name="Retry all").click()
    expect(page.locator("#status")).to_have_text("3 documents pending again.")
    expect(page.locator(".letter")).to_have_count(0)
    expect(page.get_by_text("No document is dead.")).to_be_visible()
    expect(page.get_by_role("button", name="Retry all")).to_be_hidden()
    assert ward.states("papers") == {"pending": 26, "encoded": 0, "dead": 0, "deleted": 0}
    expect(page.locator("tr[data-index='papers'] td").nth(4)).to_have_text("0")


def test_more_than_a_page(go, ward: Ward) -> None:
    ward.die("papers", *[f"d{n:02}" for n in range(1, 24)])
    page = go("?index=papers")
    expect(page.locator(".letter")).to_have_count(20)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".letter")).to_have_count(26)
    expect(page.locator(".letter:focus")).to_have_count(1)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    assert len({article.get_attribute("data-id") for article in page.locator(".letter").all()}) == 26


def test_an_index_is_chosen_by_click_address_and_back_button(go, ward: Ward) -> None:
    page = go("?index=well")
    expect(page.get_by_text("No document is dead.")).to_be_visible()
    page.get_by_role("link", name="papers").click()
    expect(page.locator(".letter")).to_have_count(3)
    assert page.url.endswith("/operate?index=papers")
    expect(page.get_by_role("link", name="Search")).to_have_attribute("href", "./?index=papers")
    page.go_back()
    expect(page.get_by_role("heading", name="Dead letters of well")).to_be_visible()
    expect(page.locator(".letter")).to_have_count(0)
    page.goto(page.url.replace("well", "nowhere"))
    expect(page.locator("#letters-problem")).to_contain_text("index_not_found")


def test_the_keyboard_reaches_everything(go, ward: Ward) -> None:
    page = go()
    expect(page.locator(".letter")).to_have_count(3)
    focused = page.locator(".letter:focus")
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_attribute("data-id", HOSTILE)
    page.keyboard.press("j")
    expect(focused).to_have_attribute("data-id", "a/b?c#d")
    page.keyboard.press("ArrowUp")
    expect(focused).to_have_attribute("data-id", HOSTILE)
    page.wait_for_timeout(3500)  # the page has refreshed and kept the focus
    expect(focused).to_have_attribute("data-id", HOSTILE)
    page.keyboard.press("Tab")
    expect(letter(page, HOSTILE).get_by_role("button")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("r")
    expect(letter(page, "a/b?c#d")).to_have_count(0)
    expect(focused).to_have_attribute("data-id", "d00")


def test_hostile_documents_stay_text(go, ward: Ward) -> None:
    page = go()
    hostile = page.locator(".letter").first
    expect(hostile.get_by_role("heading")).to_have_text(f"<script>window.hacked=1</script>{HOSTILE}")
    expect(hostile.locator(".cause")).to_contain_text("<svg onload=window.hacked=1>")
    assert hostile.locator(".chip.id").inner_text() == HOSTILE
    assert page.locator("main :is(img, script, svg)").count() == 0
    hostile.get_by_role("button").click()
    expect(page.locator(".letter")).to_have_count(2)
    page.goto(f"{page.url}?index=%3Cimg+src%3Dx%20onerror%3Dwindow.hacked%3D1%3E")
    expect(page.locator("#letters-problem")).to_contain_text("invalid_index_name")
    expect(page.get_by_role("heading", name="Dead letters of <img")).to_be_visible()


def test_a_letter_shows_why_it_was_not_retried(go, ward: Ward) -> None:
    page = go()
    expect(page.locator(".letter")).to_have_count(3)

    def refuse(route: Route) -> None:
        left = [{"id": "d00", "code": "not_stored", "reason": "OpenSearch did not store the change in time."}]
        body = {"index": "papers", "retried": [], "not_retried": left, "failed": 1, "queued": True, "remaining": 0}
        route.fulfill(json=body | {"cursor": None})

    page.route("**/retry", refuse)
    letter(page, "d00").get_by_role("button").click()
    expect(letter(page, "d00").locator(".not-retried")).to_have_text(
        "OpenSearch did not store the change in time. not_stored"
    )
    expect(page.locator("#status")).to_have_text("0 documents pending again; 1 document not retried.")


def test_problems_are_shown_and_disappear(go, ward: Ward) -> None:
    page = go()
    expect(page.locator(".letter")).to_have_count(3)
    page.context.set_offline(True)
    letter(page, "d00").get_by_role("button").click()
    expect(page.locator("#letters-problem")).to_contain_text("unreachable")
    expect(page.locator("#problem")).to_contain_text("unreachable")
    expect(page.locator(".fact.bad")).to_contain_text("Not ready")
    page.context.set_offline(False)
    expect(page.locator(".fact.good")).to_have_count(2)
    expect(page.locator("#problem")).to_be_empty()
    letter(page, "d00").get_by_role("button").click()
    expect(letter(page, "d00")).to_have_count(0)
    expect(page.locator("#letters-problem")).to_be_empty()


def test_unreachable_redis_and_a_service_that_is_not_ready(go, ward: Ward) -> None:
    page = go()
    expect(page.locator(".letter")).to_have_count(3)
    ready = ward.api.get("/readyz").json()
    page.route("**/readyz", lambda route: route.fulfill(json=ready | {"queue": {"reachable": False, "messages": None}}))
    expect(page.locator(".fact.bad")).to_contain_text("Redis is not reachable")
    problem = {"title": "Encoder mismatch", "detail": f"No query table {HOSTILE}", "code": "encoder_mismatch"}
    page.unroute("**/readyz")
    page.route("**/readyz", lambda route: route.fulfill(status=503, json=problem))
    expect(page.locator(".fact.bad")).to_contain_text(f"No query table {HOSTILE} encoder_mismatch")
    assert page.locator(".letter").count() == 3


def test_queues_workers_and_generations(go, ward: Ward) -> None:
    with closing(WorkerRegistry(ward.settings.redis_address)) as registry:
        registry.announce(f"host-1:{HOSTILE}", encoder="standin", fingerprint="d405", processes=2, version="0.1.0")
    page = go()
    queues, workers, generations = (
        page.locator(f"[data-table={name}]") for name in ("queues", "workers", "generations")
    )
    row = queues.get_by_role("row").filter(
        has=page.get_by_role("rowheader", name="sparsewell.encode.standin", exact=True)
    )
    # The two requests that sent documents are a message each: a small one, and a load.
    expect(row.get_by_role("cell").first).to_have_text("1")
    expect(workers.get_by_role("row").filter(has_text="host-1")).to_contain_text(HOSTILE)
    papers = generations.get_by_role("row").filter(has_text="papers 1")
    expect(papers).to_contain_text("searched")
    expect(papers.get_by_role("cell")).to_contain_text(["searched", "standin", "23", "3"])
    assert page.evaluate("window.hacked") is None


def test_reindex_progress_and_unreachable_redis(go, ward: Ward) -> None:
    told = ward.api.get("/v1/status").json()
    (one,) = [index for index in told["indexes"] if index["name"] == "papers"]
    building = one["generations"][0] | {"number": 2, "state": "building"}
    one["generations"].append(building)
    one["reindex"] = {"step": "following", "from": 1, "to": 2, "copied": 1234, "idle_seconds": 75.0}
    page = go()
    page.route("**/v1/status", lambda route: route.fulfill(json=told | {"queues": None, "workers": None}))
    row = page.locator("[data-table=generations]").get_by_role("row").filter(has_text="papers 2")
    expect(row).to_contain_text("building: following, 1,234 documents copied, last progress 1 min ago")
    expect(page.locator("#work")).to_contain_text("Redis does not answer")


def test_without_an_index_and_from_the_search_page(ward: Ward, api_url: str, open_page: Callable[..., Any]) -> None:
    page = open_page(api_url).go("?index=papers")
    page.get_by_role("link", name="3 dead").click()
    page.wait_for_url("**/operate?index=papers")
    expect(page.locator(".letter")).to_have_count(3)
    page.get_by_role("link", name="Search").click()
    expect(page.get_by_role("combobox", name="Query")).to_be_visible()
    page.get_by_role("link", name="Operate").click()
    expect(page.locator(".letter")).to_have_count(3)
    for index in ("papers", "well"):
        ward.api.delete(f"/v1/indexes/{index}").raise_for_status()
    page.reload()
    expect(page.get_by_text("There is no index yet.")).to_be_visible()
    expect(page.locator(".letter")).to_have_count(0)


@pytest.mark.parametrize("width", [320, 375, 768])
def test_narrow_windows_need_no_sideways_scrolling(go, ward: Ward, width: int) -> None:
    page = go(width=width, height=800)
    expect(page.locator(".letter")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    retry = letter(page, "d00").get_by_role("button").bounding_box()
    assert retry is not None
    assert retry["x"] + retry["width"] <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_colour_schemes(go, ward: Ward, scheme: str) -> None:
    page = go(scheme=scheme)
    expect(page.locator(".letter")).to_have_count(3)
    measure = """() => {
        const luminance = (colour) => {
            const [r, g, b] = colour.match(/[\\d.]+/g).map(Number)
                .map((v) => v / 255).map((v) => (v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4));
            return .2126 * r + .7152 * g + .0722 * b;
        };
        const behind = (node) => {
            for (let at = node; at; at = at.parentElement) {
                const colour = getComputedStyle(at).backgroundColor;
                if (!colour.endsWith(", 0)") && colour !== "transparent") return colour;
            }
            return "rgb(255, 255, 255)";
        };
        return [...document.querySelectorAll("main *, header *")]
            .filter((node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
            .filter((node) => node.getClientRects().length > 0)
            .filter((node) => !node.matches("option, .visually-hidden, .visually-hidden *"))
            .map((node) => {
                const [a, b] = [luminance(getComputedStyle(node).color), luminance(behind(node))].sort((x, y) => y - x);
                return [(a + .05) / (b + .05), node.className || node.tagName];
            })
            .filter(([ratio]) => ratio < 4.5);
    }"""
    assert page.evaluate(measure) == []
