"""Suggestions below the query box, by keyboard and mouse, and corrected queries."""

import json
import re
from typing import Any

from playwright.sync_api import Page, Route, expect


def options(page: Page) -> Any:
    return page.get_by_role("listbox", name="Suggestions").get_by_role("option")


def test_titles_complete_what_is_typed_and_the_keyboard_chooses(visit) -> None:
    page = visit.go("?index=shelf")
    box = page.get_by_role("combobox", name="Query")
    expect(page.locator(".welcome")).to_be_visible()
    bodies: list[dict[str, Any]] = []
    page.on("request", lambda request: request.post_data and bodies.append(json.loads(request.post_data)))
    page.keyboard.type("sto")
    expect(options(page).first.locator("b")).to_have_text("rm 1")  # bold marks the completed part
    expect(options(page)).to_have_count(8)
    expect(box).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = page.locator("#suggestions [aria-selected=true]")
    expect(second).to_have_count(1)
    assert box.get_attribute("aria-activedescendant") == second.get_attribute("id")
    expect(box).to_be_focused()
    chosen = second.inner_text()
    page.keyboard.press("Enter")
    expect(box).to_have_value(chosen)
    expect(options(page)).to_have_count(0)
    expect(box).to_have_attribute("aria-expanded", "false")
    expect(page.locator(".hit").first).to_be_visible()
    # The service learns submitted queries only, not partly typed text.
    assert [(body["query"], body.get("learn", True)) for body in bodies if body["query"]][-1] == (chosen, True)
    assert all(body["learn"] is False for body in bodies if body["query"] == "sto")

    box.fill("storm")
    expect(options(page)).to_have_count(8)
    page.keyboard.press("Escape")
    expect(options(page)).to_have_count(0)
    expect(box).to_have_value("storm")
    expect(page.locator(".hit").first).to_be_visible()
    page.keyboard.press("ArrowDown")  # the arrow moves through the results again
    expect(page.locator(".hit:focus")).to_have_count(1)


def test_the_focus_stays_at_its_rank_when_results_change(visit) -> None:
    page = visit.go("?index=shelf&q=storm+3")
    expect(page.locator(".hit").first).to_be_visible()
    held: list[Route] = []
    page.route(re.compile(r"/search$"), lambda route: held.append(route))  # noqa: PLW0108 (Playwright marks it)
    with page.expect_request(re.compile(r"/search$")):
        page.get_by_role("combobox", name="Query").fill("storm")
    expect(options(page)).to_have_count(8)  # (an open list of suggestions takes Escape and the arrows)
    page.keyboard.press("Escape")
    expect(options(page)).to_have_count(0)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".hit:focus")).to_have_attribute("data-rank", "2")
    before = page.locator(".hit:focus").element_handle()
    held[-1].continue_()
    page.wait_for_function("hit => !hit.isConnected", arg=before)
    expect(page.locator(".hit:focus")).to_have_attribute("data-rank", "2")


def test_a_click_chooses_and_titles_stay_text(visit) -> None:
    page = visit.go("?index=notes")
    box = page.get_by_role("combobox", name="Query")
    box.fill("intru")
    expect(options(page)).to_have_text(["<script>window.hacked=1</script> intruder"])
    options(page).first.click()
    expect(box).to_have_value("<script>window.hacked=1</script> intruder")
    expect(options(page)).to_have_count(0)
    box.fill("harb")
    expect(options(page)).to_have_text(["Harbour notes"])
    page.locator("header.top").click(position={"x": 300, "y": 5})
    expect(options(page)).to_have_count(0)


def test_a_slow_suggestion_never_replaces_a_newer_one(visit) -> None:
    page = visit.go("?index=notes")
    expect(page.locator(".welcome")).to_be_visible()
    held: list[Route] = []
    page.route(re.compile(r"/suggest\?q=kett$"), lambda route: held.append(route))  # noqa: PLW0108 (Playwright marks it)
    box = page.get_by_role("combobox", name="Query")
    with page.expect_request(re.compile(r"/suggest\?q=kett$")):
        box.fill("kett")
    box.fill("swee")
    expect(options(page)).to_have_text(["Sweeping up"])
    held[0].abort()
    page.wait_for_timeout(200)
    expect(options(page)).to_have_text(["Sweeping up"])


def test_a_click_takes_the_corrected_query(visit) -> None:
    page = visit.go("?index=notes&q=ketttle&mode=lexical")
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    page.get_by_role("button", name="kettle", exact=True).click()
    expect(page.locator(".hit").first).to_have_attribute("data-id", "kettle")
    assert page.url.endswith("q=kettle&mode=lexical")
    expect(page.locator("[data-act=meant]")).to_have_count(0)
