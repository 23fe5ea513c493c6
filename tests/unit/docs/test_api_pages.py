"""Check that docs/api.md is an entry page: it links to every page of docs/api, and its anchors stay reachable."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"
ENTRY = (DOCS / "api.md").read_text()
# Anchors from the time when the API had one page. External links may use them.
ANCHORS = {
    "indexes",
    "documents",
    "dead-documents",
    "export",
    "search",
    "filters",
    "facets",
    "sort-and-looking-through",
    "highlights",
    "long-documents",
    "chapters-and-passages",
    "spelling",
    "pages",
    "hybrid-fusion",
    "pruning-and-two-phases",
    "several-indexes-as-one",
    "many-searches-at-once",
    "rerank",
    "feedback",
    "conversation",
    "suggestions",
    "frequent-queries",
    "rules-of-an-index",
    "errors",
    "health",
}


def test_each_page_is_linked() -> None:
    linked = {Path(link).name for link in re.findall(r"\]\(api/([a-z-]+\.md)", ENTRY)}
    assert linked == {page.name for page in (DOCS / "api").glob("*.md")}


def test_old_anchors_lead_to_their_pages() -> None:
    assert set(re.findall(r'<a id="([a-z-]+)">', ENTRY)) == ANCHORS
