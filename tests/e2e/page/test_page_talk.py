"""Talk on the page: the timeline, speakers and times, chapters as results, the transcript."""

import re

from playwright.sync_api import Page, expect

ROPE = "?index=talks&q=the+sailor+mends+a+rope"


def trades(page: Page):
    return page.locator(".hit").and_(page.locator("[data-id='trades/1']")).first


def test_a_hit_on_talk_shows_chapter_speaker_and_time(visit) -> None:
    page = visit.go(ROPE)
    where = trades(page).locator(".talk-place")
    expect(where.locator(".chapter-title")).to_have_text("Boats")
    expect(where.locator(".speaker")).to_have_text("Bo")
    listen = where.get_by_role("link")
    shown = re.fullmatch(r"▶ 1:([0-5]\d)", listen.inner_text())
    assert shown is not None
    assert listen.get_attribute("href") == f"https://example.org/trades.mp3#t={60 + int(shown[1])}"
    expect(page.locator(".hit").and_(page.locator("[data-id='note']")).locator(".talk-place")).to_have_count(0)


def test_the_timeline_shows_lengths_of_chapters_and_marks_passages(visit) -> None:
    page = visit.go(ROPE)
    line = trades(page).locator(".timeline")
    expect(line.get_by_role("list", name="Chapters").get_by_role("link")).to_have_text(["Bread", "Boats", "Bees"])
    expect(line.locator("li.current")).to_have_text("Boats")
    widths = line.locator("li").evaluate_all("(items) => items.map((item) => item.getBoundingClientRect().width)")
    assert max(widths) - min(widths) < 2
    place = "(marks) => marks.map((mark) => Number(mark.style.getPropertyValue('--fraction')))"
    expect(line.locator(".timeline-mark").first).to_be_attached()
    assert any(0.333 <= at < 0.667 for at in line.locator(".timeline-mark").evaluate_all(place))


def test_the_timeline_marks_passages_elsewhere_in_the_talk(visit) -> None:
    page = visit.go("?index=talks&q=oven+honey+rope&mode=lexical")
    marks = trades(page).locator(".timeline-mark")
    expect(marks.nth(2)).to_be_attached()
    places = marks.evaluate_all(
        "(marks) => marks.map((mark) => Math.floor(3 * mark.style.getPropertyValue('--fraction')))"
    )
    assert len(set(places)) > 1


def test_chapters_and_passages_can_be_results(visit) -> None:
    page = visit.go(ROPE)
    page.get_by_role("button", name="Ranking").click()
    page.get_by_label("find").select_option("chapter")
    expect(page).to_have_url(re.compile("unit=chapter"))
    expect(trades(page).locator(".chapter-title")).to_have_text("Boats")
    expect(page.get_by_role("button", name="More like this")).to_have_count(0)
    page.get_by_label("find").select_option("passage")
    expect(page.locator(".hit").first.locator(".passage")).to_contain_text("rope")
    page.get_by_label("find").select_option("")
    expect(page).not_to_have_url(re.compile("unit="))


def test_the_time_of_a_chapter_is_that_of_its_link(visit) -> None:
    page = visit.go(f"{ROPE}&unit=chapter")
    listen = trades(page).locator(".talk-place").get_by_role("link")
    expect(listen).to_have_text("▶ 1:00")
    assert listen.get_attribute("href") == "https://example.org/trades.mp3#t=60"


def test_side_by_side_a_chapter_is_tied_to_itself(visit) -> None:
    page = visit.go("?index=talks&q=the+sailor+mends+a+rope+and+the+baker&mode=compare&unit=chapter")
    expect(page.get_by_text(re.compile(r"^\d chapters in both lists"))).to_be_visible()
    for side in (0, 1):
        hits = page.locator(f'.column[data-side="{side}"] .hit')
        keys = hits.evaluate_all("(hits) => hits.map((hit) => hit.dataset.key)")
        assert len(set(keys)) == len(keys) > 1


def test_the_timeline_is_one_tab_stop_and_arrows_move_along_it(visit) -> None:
    page = visit.go(ROPE)
    links = trades(page).locator(".timeline").get_by_role("link")
    expect(links).to_have_count(3)
    assert [links.nth(i).get_attribute("tabindex") for i in range(3)] == ["-1", "0", "-1"]
    links.nth(1).focus()
    page.keyboard.press("ArrowRight")
    expect(links.nth(2)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(links.nth(2)).to_be_focused()
    page.keyboard.press("Home")
    expect(links.nth(0)).to_be_focused()
    assert [links.nth(i).get_attribute("tabindex") for i in range(3)] == ["0", "-1", "-1"]
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").locator(".best").first).to_contain_text("oven")


def test_hundreds_of_chapters_fit_a_narrow_screen(visit) -> None:
    visit.page.set_viewport_size({"width": 360, "height": 700})
    page = visit.go("?index=talks&q=weaver+loom")
    line = page.locator("[data-id='loom'] .timeline")
    expect(line.get_by_role("link")).to_have_count(300)
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    shown = line.locator("li.current").evaluate("(item) => item.getBoundingClientRect().width")
    assert shown >= 4
    expect(line.locator(".timeline-mark").nth(5)).to_be_attached()  # its own mark and five from other chapters
    place = "(marks) => marks.map((mark) => Number(mark.style.getPropertyValue('--fraction')))"
    current = int((line.locator("li.current a").get_attribute("data-chapter")) or 0)
    assert any(abs(at - current / 300) < 0.02 for at in line.locator(".timeline-mark").evaluate_all(place))


def test_each_text_has_its_own_direction(visit) -> None:
    page = visit.go("?index=talks&q=מגדלור&mode=lexical")
    passage = page.locator("[data-id='hebrew'] .passage")
    text = page.evaluate_handle("() => document.createRange()")
    box = passage.evaluate("(one) => one.getBoundingClientRect().toJSON()")
    passage.evaluate("(one, range) => range.selectNodeContents(one)", text)
    words = text.evaluate("(range) => range.getBoundingClientRect().toJSON()")
    assert box["right"] - words["right"] < 2
    assert words["left"] - box["left"] > 20


def test_a_chapter_opens_the_transcript_at_its_place(visit) -> None:
    page = visit.go(ROPE)
    trades(page).locator(".timeline").get_by_role("link", name="Bees").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="Three trades")).to_be_visible()
    assert dialog.locator(".chapter-head").evaluate_all("(heads) => heads.map((head) => head.firstChild.data)") == [
        "Bread",
        "Boats",
        "Bees",
    ]
    expect(dialog.locator(".best").first).to_be_in_viewport()
    expect(dialog.locator(".best").first).to_contain_text("hive")
    assert dialog.locator(".turn-head b").all_inner_texts() == ["Ada", "Bo", "Ada"]
    dialog.get_by_role("navigation", name="Chapters").get_by_role("link", name="Bread").click()
    expect(dialog.locator(".chapter-head").first).to_be_in_viewport()
    assert dialog.locator(".whole").inner_text().count("Sentence") == 36


def test_talk_without_times_shows_its_text(visit) -> None:
    page = visit.go("?index=talks&q=rope&doc=plain")
    whole = page.get_by_role("dialog").locator(".whole")
    expect(whole).to_contain_text("<b onclick=window.hacked=1>Bold</b> words on rope.")
    expect(page.get_by_role("dialog").locator(".listen")).to_have_count(0)


def test_an_index_without_talk_offers_no_chapters(visit) -> None:
    page = visit.go("?index=notes&q=folder&unit=chapter")
    expect(page.locator(".hit").first).to_be_visible()
    page.get_by_role("button", name="Ranking").click()
    expect(page.get_by_label("find")).to_have_count(0)
