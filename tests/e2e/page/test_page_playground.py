"""Filters with counts, order, ranking options, the request to copy, further pages, examples and the open document."""

import json
import re
import shlex
from typing import Any

import httpx
from playwright.sync_api import Page, expect
from pytest import approx

STORM = "?index=shelf&q=storm+over+the+island"
ALL = f"{STORM}&f.genre=crime&f.genre=travel&f.pages=150..420&f.lent=false&f.published=1990-01-01..1994-12-31"


def searched(page: Page) -> list[dict[str, Any]]:
    """Record every search that the page sends from now on."""
    bodies: list[dict[str, Any]] = []

    def note(request: Any) -> None:
        if request.url.endswith("/search"):
            bodies.append(json.loads(request.post_data))

    page.on("request", note)
    return bodies


def ids(page: Page) -> list[str]:
    expect(page.locator(".hit").first).to_be_visible()
    expect(page.locator("#results[aria-busy]")).to_have_count(0)  # the new view has loaded
    return [hit.get_attribute("data-id") or "" for hit in page.locator(".hit").all()]


def repeat_shown_request(page: Page, base: str, index: str = "shelf") -> dict[str, Any]:
    """Repeat the request that the page shows and return the response."""
    body = json.loads(page.locator(".request pre").text_content() or "")
    answer = httpx.post(f"{base}/v1/indexes/{index}/search", json=body, timeout=30, trust_env=False).raise_for_status()
    return answer.json()  # type: ignore[no-any-return]


def test_every_declared_field_has_a_control_of_its_type(visit) -> None:
    page = visit.go(STORM)
    ids(page)
    filters = page.get_by_role("region", name="Filters")
    assert {
        facet.get_attribute("data-field"): facet.get_attribute("data-type") for facet in filters.locator(".facet").all()
    } == {
        "genre": "keyword",
        "lent": "boolean",
        "pages": "number",
        "published": "date",
        "blurb": "text",
    }
    answer = repeat_shown_request(page, visit.base)
    for field in ("genre", "published"):
        buckets = answer["facets"][field]["buckets"]
        counts = filters.locator(f"[data-field={field}] .count").all_inner_texts()
        assert sorted(counts) == sorted(str(bucket["count"]) for bucket in buckets)
    expect(filters.locator(".counted")).to_have_text("counted among the best 36")
    visit.go("?index=blank")
    expect(page.locator(".notice")).to_be_visible()
    expect(filters).to_be_hidden()
    expect(page.locator("#sort select")).to_have_count(0)


def test_filters_can_be_added_and_removed(visit) -> None:
    page = visit.go(STORM)
    ids(page)
    bodies = searched(page)
    filters = page.get_by_role("region", name="Filters")
    filters.get_by_label("garden").check()
    expect(page.get_by_role("button", name="Remove genre garden")).to_be_visible()
    filters.get_by_label("pages to").fill("250")
    filters.get_by_label("pages to").press("Tab")
    expect(page.get_by_role("button", name="Remove pages up to 250")).to_be_visible()
    filters.get_by_label("yes").check()
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()  # no book has 4 genres and is lent
    assert bodies[-1]["filter"] == {
        "all": [
            {"field": "genre", "is": "garden"},
            {"field": "pages", "range": {"lte": 250}},
            {"field": "lent", "is": True},
        ]
    }
    page.get_by_role("button", name="Remove lent yes").click()
    expect(page.locator(".hit")).to_have_count(4)
    assert sorted(ids(page)) == ["book-03", "book-07", "book-11", "book-15"]
    # The page still counts the other values of the field.
    expect(filters.locator("[data-field=genre] .values li")).to_have_count(4)
    filters.get_by_label("1991").check()
    expect(page.locator(".hit")).to_have_count(1)
    assert bodies[-1]["filter"]["all"][-1] == {
        "field": "published",
        "range": {"gte": "1991-01-01", "lt": "1992-01-01"},
    }
    assert page.url.endswith("&f.genre=garden&f.pages=..250&f.published=1991-01-01..%3C1992-01-01")
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator(".hit")).to_have_count(10)
    assert page.url.endswith(STORM)


def test_a_link_reproduces_the_whole_search(visit) -> None:
    address = f"{ALL}&mode=sparse&prune=0.2&phases=2&like=book-01&unlike=book-02&size=20"
    page = visit.go(address)
    bodies = searched(page)
    page.reload()
    ids(page)
    page.get_by_role("button", name="Request").click()
    shown = json.loads(page.locator(".request pre").text_content() or "")
    assert shown == bodies[-1]
    assert shown == {
        "query": "storm over the island",
        "mode": "sparse",
        "size": 20,
        "filter": {
            "all": [
                {"field": "genre", "any_of": ["crime", "travel"]},
                {"field": "pages", "range": {"gte": 150, "lte": 420}},
                {"field": "lent", "is": False},
                {"field": "published", "range": {"gte": "1990-01-01", "lte": "1994-12-31"}},
            ]
        },
        "facets": {
            "genre": {"terms": 30, "ignore_own_filter": True},
            "lent": {"terms": 2, "ignore_own_filter": True},
            "published": {"dates": "year", "ignore_own_filter": True},
        },
        "prune": 0.2,
        "two_phase": True,
        "like": ["book-01"],
        "unlike": ["book-02"],
        "explain": True,
        "highlight": {"characters": 340},
        "cursor": "*",
    }
    assert [chip.text_content() for chip in page.locator("#active .chip").all()] == [
        "genre crime×", "genre travel×", "pages 150 – 420×", "lent no×", "published 1990-01-01 – 1994-12-31×",
        "more like book-01×", "less like book-02×",
    ]  # fmt: skip
    # The page can read and write an address without loss.
    written = page.evaluate(
        """async () => {
            const { readAddress, writeAddress } = await import("/static/state.js");
            return writeAddress(readAddress());
        }"""
    )
    assert httpx.QueryParams(written) == httpx.QueryParams(address)


def test_the_request_can_be_copied_as_json_and_as_curl(visit) -> None:
    page = visit.go("?index=notes&q=the+kettle's+%22whistle%22")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ids(page)
    page.get_by_role("button", name="Request").click()
    page.get_by_role("button", name="Copy JSON").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied["query"] == 'the kettle\'s "whistle"'
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_role("button", name="Copied")).to_have_count(2)
    command = shlex.split(page.evaluate("navigator.clipboard.readText()").replace("\\\n", ""))  # as a shell joins lines
    assert command[:2] == ["curl", f"{visit.base}/v1/indexes/notes/search"]
    assert command[2:5] == ["-H", "content-type: application/json", "-d"]
    assert json.loads(command[5]) == copied


def test_documents_can_be_sorted_and_filtered_without_a_query(visit) -> None:
    page = visit.go("?index=shelf")
    expect(page.locator(".welcome")).to_be_visible()
    filters = page.get_by_role("region", name="Filters")
    expect(filters.locator("[data-field=genre] .count")).to_have_text(["36", "27", "18", "9"])
    filters.get_by_label("garden").check()
    expect(page.locator("#status")).to_have_text(re.compile("^9 results in "))
    page.get_by_label("Sort by").select_option("-pages")
    expect(page.locator(".hit").first).to_have_attribute("data-id", "book-35")
    assert ids(page) == [f"book-{n:02}" for n in range(35, 0, -4)]
    assert "sort=-pages" in page.url
    expect(page.locator(".score")).to_have_count(0)


def test_pages_follow_each_other_without_repeating_a_document(visit) -> None:
    page = visit.go(STORM)
    ids(page)
    more = page.locator("[data-act=more]")
    for shown in (20, 30):
        more.click()
        expect(page.locator(".hit")).to_have_count(shown)
        assert f"size={shown}" in page.url
        expect(page.locator(".hit:focus")).to_have_attribute("data-rank", str(shown - 9))
    more.click()
    expect(page.locator(".hit")).to_have_count(36)
    expect(page.locator(".further")).to_have_text("These are all results.")
    assert sorted(ids(page)) == [f"book-{n:02}" for n in range(36)]
    page.reload()
    expect(page.locator(".hit")).to_have_count(36)


def test_ranking_options_change_the_request_and_the_scores(visit) -> None:
    page = visit.go(STORM)
    ids(page)
    bodies = searched(page)
    page.get_by_role("button", name="Ranking").click()
    panel = page.get_by_role("region", name="Ranking")
    slider = panel.get_by_role("slider", name="Share of the sparse list")
    slider.fill("0.8")
    slider.dispatch_event("change")
    expect(page.get_by_role("button", name="Ranking (1)")).to_be_visible()
    panel.get_by_label("scaled by").select_option("rrf")
    expect(page.get_by_role("button", name="Ranking (2)")).to_be_visible()
    page.wait_for_url("**fusion=rrf")
    ids(page)
    assert (bodies[-1]["weights"], bodies[-1]["fusion"]) == ({"sparse": 0.8, "lexical": 0.2}, "rrf")
    first = page.locator(".hit").first
    first.get_by_role("button", name="Why").click()
    numbers = [float(n) for n in re.findall(r"[\d.]+", first.locator(".fused").inner_text())]
    assert numbers[0] == approx(float(first.locator(".score").inner_text()), abs=0.001)
    assert numbers[0] == approx(numbers[3] + numbers[6], abs=0.002)
    panel.get_by_label("scored by").select_option("whole vector")
    page.wait_for_url("**by=document")
    ids(page)
    assert bodies[-1]["score_by"] == "document"
    panel.get_by_label("prune below").fill("0.5")
    panel.get_by_label("prune below").press("Enter")
    expect(page.locator(".query-pieces .pruned .piece").first).to_be_visible()
    page.get_by_role("radio", name="Lexical").check()
    for label in ("prune below", "scaled by", "scored by"):
        expect(panel.get_by_label(label)).to_have_count(0)


def test_reranking_gives_scores_of_its_own(visit) -> None:
    page = visit.go(STORM)
    ids(page)
    page.get_by_role("button", name="Ranking").click()
    page.get_by_role("checkbox", name="rerank").check()
    expect(page.locator(".hit .scores").first).to_contain_text("dense")
    expect(page.locator(".remark")).to_have_count(0)
    expect(page.locator(".stage-list")).to_contain_text("rerank")
    assert "rerank=0.7" in page.url
    answer = repeat_shown_request(page, visit.base)
    assert answer["rerank"]["applied"]
    assert ids(page) == [hit["id"] for hit in answer["hits"]]
    page.get_by_label("Sort by").select_option("pages")  # a sorted list cannot be reranked
    expect(page.get_by_role("checkbox", name="rerank")).not_to_be_checked()
    visit.go("?index=notes&q=kettle")
    ids(page)
    page.get_by_role("button", name="Ranking").click()
    expect(page.get_by_role("checkbox", name="rerank")).to_have_count(0)  # that index declares no dense encoder


def test_a_remark_says_why_a_search_was_not_reranked(api: httpx.Client, api_url: str, open_page, eventually) -> None:
    api.put("/v1/indexes/lone", json={"dense": "standin-dense"}).raise_for_status()
    api.post("/v1/indexes/lone/documents", json=[{"id": "a", "text": "A lone goose."}]).raise_for_status()
    found = "/v1/indexes/lone/search?q=goose&mode=lexical"
    eventually(lambda: api.get(found).json()["hits"], 60, "lexical search finds it")
    page = open_page(api_url).go("?index=lone&q=goose&mode=lexical&rerank=0.5")
    remark = page.locator(".remark")
    expect(remark).to_contain_text("the service has no model process")
    expect(remark).to_contain_text("model_not_configured")
    assert ids(page) == ["a"]


def test_examples_change_the_results_and_can_be_removed(visit) -> None:
    page = visit.go("?index=notes&q=temporary")
    bodies = searched(page)
    first = ids(page)[0]
    page.locator(".hit").first.get_by_role("button", name="More like this").click()
    expect(page.locator(f".hit[data-id='{first}']")).to_have_count(0)
    assert bodies[-1]["like"] == [first]
    assert page.url.endswith(f"&like={first}")
    expect(page.locator(".query-pieces .added .piece").first).to_be_visible()
    page.get_by_role("button", name="Remove more like").click()
    expect(page.locator(".hit").first).to_have_attribute("data-id", first)
    page.locator(".hit").first.focus()
    page.keyboard.press("-")
    expect(page.locator("#active")).to_contain_text("less like")
    assert bodies[-1]["unlike"] == [first]
    page.get_by_role("radio", name="Lexical").check()
    expect(page.locator(".hit").first).to_be_visible()
    assert "unlike" not in bodies[-1]
    expect(page.get_by_role("button", name="More like this")).to_have_count(0)
    visit.go("?index=notes&q=temporary&like=nowhere")
    expect(page.locator(".remark")).to_have_text("Not in this index: nowhere.")


def test_a_link_opens_a_document_at_a_passage(visit) -> None:
    answer = httpx.get(f"{visit.base}/v1/indexes/notes/search?q=lighthouse&size=1", timeout=30, trust_env=False).json()
    passage = answer["hits"][0]["passage"]
    deep = f"?index=notes&doc=harbour%2Fno+7%3F%23a&start={passage['start']}&end={passage['end']}"
    page = visit.go(deep)
    opened = page.get_by_role("dialog", name="Harbour notes")
    best = opened.locator(".best")
    assert best.text_content() == passage["text"]
    expect(best).to_be_in_viewport()
    opened.get_by_role("button", name="Close").click()
    expect(opened).to_be_hidden()
    expect(page).to_have_url(f"{visit.base}/?index=notes")
    page.go_back()
    expect(opened).to_be_visible()
    visit.go(f"{deep}&q=lighthouse")
    expect(opened.locator(".best mark")).to_have_text(["lighthouse"])
    visit.go("?index=notes&doc=nobody")
    expect(page.get_by_role("dialog")).to_contain_text("document_not_found")


def test_expansions_are_named_and_marks_show_contributions(visit) -> None:
    page = visit.go("?index=notes&q=temporary+file&mode=sparse")
    files = page.locator(".hit[data-id='files']")
    expect(files.locator(".by-meaning .named")).to_have_text(["file"])
    title = files.locator(".passage mark").first.get_attribute("title")
    assert re.fullmatch(r"sparse temporary \d[\d.]*", title or "")


def test_the_keyboard_reaches_the_filters_and_keeps_the_focus(visit) -> None:
    page = visit.go(STORM)
    ids(page)
    page.locator(".hit").first.focus()
    page.keyboard.press("f")
    first = page.get_by_role("region", name="Filters").locator("input").first
    expect(first).to_be_focused()
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Remove genre sea")).to_be_visible()
    expect(first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("combobox", name="Query")).to_be_focused()


def test_panels_fold_out_and_fit_on_a_phone(seeded: str, open_page) -> None:
    page = open_page(seeded, width=320, height=740, scheme="dark").go(ALL)
    ids(page)
    filters = page.get_by_role("region", name="Filters")
    expect(filters).to_be_hidden()
    for name in ("Ranking", "Filters", "Pieces and time", "Request"):
        page.get_by_role("button", name=name).click()
    expect(filters).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.locator(".hit h3 a").first.click()
    expect(page.get_by_role("dialog").locator(".whole")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
