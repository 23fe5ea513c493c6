"""Lexical and sparse results side by side, the keyboard, narrow windows, contrast and pending documents."""

from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page, expect

COMPARE = "?index=notes&q=waiting+for+the+temporary+folder&mode=compare"


def column(page: Page, side: int):
    return page.locator(f".column[data-side='{side}']")


def ids(page: Page, side: int) -> list[str]:
    expect(column(page, side).locator(".hit").first).to_be_visible()
    return [article.get_attribute("data-id") or "" for article in column(page, side).locator(".hit").all()]


def test_lists_match_the_api_and_ties_join_equal_results(visit) -> None:
    page = visit.go(COMPARE + "&prune=0")
    lists = [ids(page, 0), ids(page, 1)]
    for mode, shown in zip(("lexical", "sparse"), lists, strict=True):
        body = {"query": "waiting for the temporary folder", "mode": mode} | ({"prune": 0} if mode == "sparse" else {})
        answer = httpx.post(f"{visit.base}/v1/indexes/notes/search", json=body, timeout=30, trust_env=False).json()
        assert shown == [entry["id"] for entry in answer["hits"]]
    both = set(lists[0]) & set(lists[1])
    # Only lexical search treats "waits" as a form of "waiting". Only the encoder treats "the" as a word.
    assert {"patience"} == set(lists[0]) - both
    assert "kettle" in set(lists[1]) - both
    for side in (0, 1):
        for rank, document in enumerate(lists[side], 1):
            relation = column(page, side).locator(".hit").nth(rank - 1).locator(".relation")
            if document in both:
                other = lists[1 - side].index(document) + 1
                expect(relation).to_contain_text(f"{('sparse', 'lexical')[side]} {other}")
            else:
                expect(relation).to_have_text("only here")
    expect(page.locator(".tie")).to_have_count(len(both))
    expect(page.locator("#status")).to_contain_text(f"{len(both)} documents in both lists, 1 only in the lexical list")


def test_ties_join_the_titles_and_follow_when_a_panel_opens(visit) -> None:
    page = visit.go(COMPARE)
    ids(page, 0)
    measure = """() => [...document.querySelectorAll(".tie")].map((tie) => {
        const box = tie.getBoundingClientRect();
        const title = (side) => [...document.querySelectorAll(`.column[data-side="${side}"] .hit`)]
            .find((hit) => hit.dataset.key === tie.dataset.key).querySelector("h3").getBoundingClientRect();
        const middle = (rect) => rect.top + 13;
        const wanted = [middle(title(0)), middle(title(1))].sort((a, b) => a - b);
        return Math.max(Math.abs(box.top - wanted[0]), Math.abs(box.bottom - wanted[1]));
    })"""
    assert max(page.evaluate(measure)) < 3
    column(page, 0).get_by_role("button", name="Why").first.click()
    page.wait_for_timeout(100)
    assert max(page.evaluate(measure)) < 3


def test_the_keyboard_reaches_everything(visit) -> None:
    page = visit.go(COMPARE)
    left, right = ids(page, 0), ids(page, 1)
    page.locator("body").click(position={"x": 5, "y": 5})
    page.keyboard.press("/")
    expect(page.get_by_role("combobox", name="Query")).to_be_focused()
    page.keyboard.press("ArrowDown")
    focused = page.locator(".hit:focus")
    expect(focused).to_have_attribute("data-id", left[0])
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_attribute("data-id", left[1])
    shared = next(document for document in left if document in right)
    column(page, 0).locator(".hit").nth(left.index(shared)).focus()
    page.keyboard.press("ArrowRight")
    expect(column(page, 1).locator(".hit:focus")).to_have_attribute("data-id", shared)
    assert page.locator(".hit.lit").count() == 2
    page.keyboard.press("Enter")
    expect(focused.locator(".why")).to_be_visible()
    page.keyboard.press("d")
    expect(page.get_by_role("dialog").locator(".whole")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(focused).to_have_attribute("data-id", shared)
    page.keyboard.press("ArrowLeft")
    expect(column(page, 0).locator(".hit:focus")).to_have_attribute("data-id", shared)
    page.keyboard.press("Escape")
    expect(page.get_by_role("combobox", name="Query")).to_be_focused()
    page.keyboard.type("a/b")  # a slash in the box is text, not a shortcut
    assert page.get_by_role("combobox", name="Query").input_value() == "a/b"


def test_a_click_goes_to_the_same_result_in_the_other_list(visit) -> None:
    page = visit.go(COMPARE)
    left, right = ids(page, 0), ids(page, 1)
    shared = next(document for document in left if document in right)
    column(page, 0).locator(".hit").nth(left.index(shared)).locator("[data-act=counterpart]").click()
    expect(column(page, 1).locator(".hit:focus")).to_have_attribute("data-id", shared)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "view", ["?index=notes", "?index=notes&q=temporary+folder", COMPARE, "?index=notes&q=intruder"]
)
def test_nothing_is_wider_than_a_phone(seeded: str, open_page: Callable[..., object], view: str, scheme: str) -> None:
    page = open_page(seeded, width=320, height=740, scheme=scheme).go(view)
    expect(page.locator(".welcome, .hit").first).to_be_visible()
    for button in page.locator("[data-act=why]").all()[:2]:
        button.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    box = page.get_by_role("combobox", name="Query").bounding_box()
    assert box is not None
    assert box["width"] > 130


CONTRAST = """() => {
    const rgb = (name) => {
        const probe = document.createElement("i");
        probe.style.color = `var(--${name})`;
        document.body.append(probe);
        const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
        probe.remove();
        return parts;
    };
    const light = (name) => {
        const [r, g, b] = rgb(name).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
    const pairs = {};
    for (const ink of ["ink", "soft", "faint", "accent"])
        for (const ground of ["paper", "raised", "tint-1"]) pairs[`${ink} on ${ground}`] = ratio(ink, ground);
    for (const ground of ["tint-2", "tint-3"]) pairs[`ink on ${ground}`] = ratio("ink", ground);
    pairs["accent-ink on accent"] = ratio("accent-ink", "accent");
    return pairs;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrast(seeded: str, open_page: Callable[..., object], scheme: str) -> None:
    pairs = open_page(seeded, scheme=scheme).go("?index=notes").evaluate(CONTRAST)
    assert {pair: ratio for pair, ratio in pairs.items() if ratio < 4.5} == {}  # WCAG 2.2 AA


def test_counts_of_pending_documents_are_updated(
    api: httpx.Client, api_url: str, open_page: Callable[..., object], start_service_process: Callable[[str], object]
) -> None:
    api.put("/v1/indexes/post", json={}).raise_for_status()
    api.post("/v1/indexes/post/documents", json=[{"id": "letter", "text": "A letter about geese."}]).raise_for_status()
    page = open_page(api_url).go("?index=post&q=geese&mode=lexical")
    expect(page.locator("#index-state")).to_have_text("1 document1 pending")
    for _ in range(20):  # until lexical search finds the refreshed document
        if page.locator(".hit").count():
            break
        page.wait_for_timeout(200)
        page.get_by_role("button", name="Search").click()
    expect(page.locator(".hit .chip.state")).to_have_text("pending")
    start_service_process("worker")
    expect(page.locator("#index-state")).to_have_text("1 document", timeout=30_000)
    page.get_by_role("radio", name="Sparse").check()
    expect(page.locator(".hit")).to_have_attribute("data-id", "letter")
    expect(page.locator(".hit .chip.state")).to_have_count(0)
