"""Searching on the page: results, explanations, the address, errors and hostile documents, in a real browser."""

import re
from collections.abc import Callable

import httpx
from playwright.sync_api import Page, Route, expect
from pytest import approx

HOSTILE = '<img src=x onerror="window.hacked=1">'
QUERY = "?index=notes&q=temporary+folder"


def hit(page: Page, document: str):
    return page.locator(".hit").and_(page.locator(f"[data-id='{document}']"))


def test_typing_is_enough(visit) -> None:
    page = visit.go("?index=notes")
    expect(page.get_by_role("combobox", name="Query")).to_be_focused()
    page.keyboard.type("temporary folder")
    first = page.locator(".hit").first
    expect(first.get_by_role("heading")).to_have_text("A temporary folder")
    expect(page.locator("#status")).to_have_text(re.compile(r"^\d+ results in [\d.]+ (µs|ms|s)$"))
    expect(page).to_have_title("temporary folder · sparsewell")
    assert first.locator("mark").all_inner_texts()[:2] == ["temporary", "folder"]
    assert first.locator("mark.m3").count() > 0
    stages = page.locator(".stage-list dt").all_inner_texts()
    assert "query to pieces" in stages
    assert "fuse the lists" in stages
    assert page.locator(".query-pieces .piece").all_inner_texts() == ["folder", "temporary"]


def test_results_show_score_metadata_and_both_lists(visit) -> None:
    page = visit.go("?index=notes&q=nobody+comes+waits")
    patience = hit(page, "patience")
    expect(patience.get_by_role("heading")).to_have_text("patience")  # a document without a title shows its id
    assert patience.locator(".chip").all_inner_texts() == ["kind novel, short", "year 1922"]
    api = httpx.get(
        f"{visit.base}/v1/indexes/notes/search",
        params={"q": "nobody comes waits", "explain": True},
        timeout=30,
        trust_env=False,
    ).json()
    shown = next(entry for entry in api["hits"] if entry["id"] == "patience")
    assert patience.locator(".score").inner_text() == f"{shown['score']:.3f}"
    sparse, lexical = (float(text) for text in patience.locator(".scores b").all_inner_texts())
    assert (sparse, lexical) == (
        approx(shown["scores"]["sparse"], rel=0.01),
        approx(shown["scores"]["lexical"], rel=0.01),
    )


def test_why_shows_factors_and_marks_expansions(visit) -> None:
    page = visit.go("?index=notes&q=temporary+file&mode=sparse")
    files = hit(page, "files")
    files.get_by_role("button", name="Why").click()
    rows = files.locator(".bars li")
    expect(rows).to_have_count(2)
    total = 0.0
    for row in rows.all():
        factor, weight, product = (float(n) for n in re.findall(r"[\d.]+", row.locator(".product").inner_text()))
        assert factor * weight == approx(product, abs=0.06)
        total += product
    assert total == approx(float(files.locator(".score").inner_text()), abs=0.1)
    # The text says "files". The encoder also relates it to "file".
    expansion = files.locator(".bars li.expansion")
    assert expansion.get_attribute("data-piece") == "file"
    expect(files.locator(".why-note")).to_contain_text("not in the document’s own words")
    assert "files" not in files.locator(".passage mark").all_inner_texts()
    expect(files.locator(".passage mark")).to_have_text(["temporary"])


def test_lexical_reasons_are_words_and_their_forms_are_marked(visit) -> None:
    page = visit.go("?index=notes&q=waiting+kettles&mode=lexical")
    expect(hit(page, "patience").locator(".passage mark")).to_have_text(["waits"])
    kettle = hit(page, "kettle")
    kettle.get_by_role("button", name="Why").click()
    expect(kettle.locator(".bars .piece")).to_have_text(["kettl"])
    expect(kettle.locator(".contributions")).to_contain_text("BM25")


def test_a_long_document_shows_its_best_passage(visit) -> None:
    page = visit.go("?index=notes&q=lighthouse+keeper")
    long = page.locator(".hit").first
    expect(long.locator(".passage")).to_contain_text("lighthouse keeper counts")
    expect(long.locator(".chip.window")).to_have_text(re.compile(r"window \d+ of \d+"))
    long.get_by_role("link", name="Harbour notes").click()
    opened = page.get_by_role("dialog")
    # The id has a slash, a space, a question mark and a hash. The text begins with a character outside the 16-bit
    # plane.
    expect(opened.locator(".record")).to_contain_text("harbour/no 7?#a")
    best = opened.locator(".whole .best")
    expect(best).to_contain_text("A lighthouse keeper counts his lamps.")
    answer = httpx.get(
        f"{visit.base}/v1/indexes/notes/search?q=lighthouse+keeper&size=1", timeout=30, trust_env=False
    ).json()
    assert best.text_content() == answer["hits"][0]["passage"]["text"]
    assert opened.locator(".whole").text_content().startswith("🫖🫖🫖 The harbour")


def test_hostile_documents_and_queries_stay_text(visit) -> None:
    page = visit.go("?index=notes&q=" + "intruder+%3Cimg+src%3Dx+onerror%3Dwindow.hacked%3D1%3E")
    first = page.locator(".hit").first
    expect(first.get_by_role("heading")).to_have_text("<script>window.hacked=1</script> intruder")
    expect(first.locator(".passage")).to_contain_text("<svg onload=window.hacked=1>")
    assert first.locator(".chip").all_inner_texts() == [HOSTILE, f"kind {HOSTILE}"]
    first.get_by_role("button", name="Why").click()
    first.get_by_role("link").click()
    opened = page.get_by_role("dialog")
    expect(opened.get_by_role("heading")).to_have_text("<script>window.hacked=1</script> intruder")
    expect(opened.locator(".whole")).to_contain_text(HOSTILE)
    opened.get_by_role("button", name="Close").click()
    first.get_by_role("button", name="More like this").click()
    expect(page.get_by_role("button", name="Remove more like")).to_be_visible()
    expect(page.locator("#active")).to_contain_text("<script>window.hacked=1</script> intruder")
    page.get_by_role("button", name="Remove more like").click()
    page.get_by_role("radio", name="Side by side").check()
    expect(page.locator(".column .hit").first).to_be_visible()
    assert page.locator("#results :is(img, script, b > b, .passage svg)").count() == 0
    page.goto(f"{visit.base}/?index=%3Cimg+src%3Dx%3E&q=%3Cscript%3Ewindow.hacked%3D1%3C%2Fscript%3E")
    expect(page.locator(".problem")).to_be_visible()
    assert page.get_by_role("combobox", name="Query").input_value() == "<script>window.hacked=1</script>"
    # The browser blocks violations that the tests above cannot detect.
    refused = page.evaluate("try { document.body.innerHTML = '<b>x</b>'; 'done' } catch (error) { error.name }")
    assert refused == "TypeError"
    visit.errors.clear()  # the console contains the provoked violation


def test_the_address_holds_the_view_and_back_goes_back(visit) -> None:
    page = visit.go("?index=notes")
    page.get_by_role("combobox", name="Query").press_sequentially("kettle", delay=30)
    expect(page.locator(".hit").first).to_have_attribute("data-id", "kettle")
    assert page.url == f"{visit.base}/?index=notes&q=kettle"
    page.get_by_role("combobox", name="Query").fill("folder")
    page.keyboard.press("Enter")
    expect(page.locator(".hit").first).to_have_attribute("data-id", "folder")
    page.get_by_role("radio", name="Lexical").check()
    page.wait_for_url(f"{visit.base}/?index=notes&q=folder&mode=lexical")
    page.go_back()
    expect(page.get_by_role("radio", name="Hybrid")).to_be_checked()
    assert page.get_by_role("combobox", name="Query").input_value() == "folder"
    page.go_back()
    assert page.url in {f"{visit.base}/?index=notes&q=kettle", f"{visit.base}/?index=notes"}
    other = page.context.new_page()
    other.goto(f"{visit.base}/?index=notes&q=folder&mode=lexical&size=20")
    expect(other.get_by_role("radio", name="Lexical")).to_be_checked()
    expect(other.locator(".hit").first).to_have_attribute("data-id", "folder")


def test_a_slow_answer_never_replaces_a_newer_one(visit) -> None:
    page = visit.go("?index=notes")
    expect(page.locator(".welcome")).to_be_visible()
    held: list[Route] = []

    def hold(route: Route) -> None:
        if '"kettle"' in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    aborted: list[str] = []
    page.on("requestfailed", lambda request: request.post_data and aborted.append(request.post_data))
    page.route("**/search", hold)
    box = page.get_by_role("combobox", name="Query")
    with page.expect_request(lambda request: '"kettle"' in (request.post_data or "")):
        box.fill("kettle")
    expect(page.locator("#waiting")).to_be_visible()
    box.fill("folder")
    expect(page.locator(".hit").first).to_have_attribute("data-id", "folder")
    assert len(held) == 1
    assert '"kettle"' in aborted[0]
    held[0].continue_()
    page.wait_for_timeout(300)
    expect(page.locator(".hit").first).to_have_attribute("data-id", "folder")
    expect(page.locator("#waiting")).to_be_hidden()


def test_problems_show_the_text_of_the_api(visit) -> None:
    page = visit.go("?index=notes")
    expect(page.locator(".welcome")).to_be_visible()
    page.get_by_role("combobox", name="Query").fill("x" * 5000)
    problem = page.get_by_role("alert").locator(".problem")
    expect(problem).to_contain_text("query_too_long")
    expect(problem).to_contain_text("it may have 4,096")
    expect(problem).to_contain_text("HTTP 422")
    page.get_by_role("combobox", name="Query").fill("kettle")
    expect(page.locator(".hit").first).to_have_attribute("data-id", "kettle")
    expect(problem).to_have_count(0)
    page.goto(f"{visit.base}/?index=nowhere&q=kettle")
    expect(problem).to_contain_text("index_not_found")


def test_the_page_reports_a_lost_connection_and_recovers(visit) -> None:
    page = visit.go(QUERY)
    expect(page.locator(".hit").first).to_be_visible()
    page.context.set_offline(True)
    page.get_by_role("combobox", name="Query").fill("kettle")
    expect(page.locator(".problem")).to_contain_text("unreachable")
    assert page.locator(".hit").count() == 0
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".hit").first).to_have_attribute("data-id", "kettle")


def test_empty_states(visit, api_url: str, open_page: Callable[..., object]) -> None:
    page = visit.go("?index=notes&q=zzzz&mode=lexical")
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    page.get_by_role("combobox", name="Index").select_option("blank")
    expect(page.get_by_role("heading")).to_contain_text(["sparsewell", "“blank” has no documents yet"])
    expect(page.locator(".notice pre").first).to_have_text("sparsewell load documents.jsonl --index blank")
    page.goto(f"{visit.base}/")
    expect(page.get_by_role("combobox", name="Index")).to_have_value("shelf")  # the index with the most documents
    page.locator(".examples button").first.click()
    expect(page.get_by_role("combobox", name="Query")).not_to_have_value("")

    nothing = open_page(api_url).go()
    expect(nothing.get_by_role("heading", name="There is no index yet")).to_be_visible()
    expect(nothing.locator(".notice pre").first).to_have_text("sparsewell load documents.jsonl --index notes --create")
    httpx.put(f"{api_url}/v1/indexes/fresh", json={}, timeout=30, trust_env=False).raise_for_status()
    # The page notices the new index without a reload.
    expect(nothing.get_by_role("heading", name="“fresh” has no documents yet")).to_be_visible()
