"""Take the pictures of the search page in docs/images from the demos, and provide the browser of the page tests.

To take the pictures, run `make demo demo-talk KEEP=1`, then `make pictures`.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


# The machine may have no access to the internet. Without these options Chromium contacts many of its own hosts at each
# start.
CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def open_chromium() -> Iterator["Browser"]:
    """Open a headless Chromium: that of the environment variable CHROMIUM, or else the system's."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


IMAGES_DIRECTORY = Path(__file__).parents[2] / "docs" / "images"
FOLDER_QUERY = "?index=stdlib&q=make+a+temporary+folder"
AVERAGE_QUERY = "?index=stdlib&q=average+of+some+numbers"
SIGNAL_QUERY = "?index=talk&q=weak+phone+signal+in+the+house"


@dataclass(frozen=True)
class PagePicture:
    """A picture of a page in a window. `act` uses the page before the picture is taken."""

    name: str
    address: str
    width: int = 1280
    height: int = 860
    scheme: str = "light"
    act: Callable[["Page"], None] | None = None


def _open_explanation(page: "Page") -> None:
    page.locator("[data-act=why]").first.click()


def _open_sparse_explanation(page: "Page") -> None:
    page.locator(".column[data-side='1'] [data-act=why]").first.click()


def _open_request(page: "Page") -> None:
    page.locator("#ranking-toggle").click()
    page.locator("#request-toggle").click()


def _open_document(page: "Page") -> None:
    page.locator("dialog .whole").wait_for()


def _open_filters(page: "Page") -> None:
    page.locator("#filters-toggle").click()


def _open_marked(page: "Page") -> None:
    page.locator(".timeline-mark").nth(2).wait_for(state="attached")


PAGE_PICTURES = (
    PagePicture("search-page", f"{AVERAGE_QUERY}&mode=compare", act=_open_sparse_explanation),
    PagePicture(
        "playground", f"{FOLDER_QUERY}&f.kind=class&f.kind=function&share=0.6", height=1000, act=_open_explanation
    ),
    PagePicture(
        "playground-dark",
        f"{FOLDER_QUERY}&prune=0.3&like=tempfile.mkdtemp",
        scheme="dark",
        height=1000,
        act=_open_request,
    ),
    PagePicture("playground-document", f"{AVERAGE_QUERY}&doc=statistics", act=_open_document),
    PagePicture("playground-narrow", f"{FOLDER_QUERY}&f.kind=function", width=390, height=844),
    PagePicture("playground-narrow-dark", FOLDER_QUERY, width=390, height=844, scheme="dark", act=_open_filters),
    PagePicture("talk", SIGNAL_QUERY, act=_open_marked),
    PagePicture("talk-transcript", f"{SIGNAL_QUERY}&doc=syntax-169", act=_open_document),
)


def take_pictures(browser: "Browser", base: str, directory: Path) -> Iterator[Path]:
    """Take every picture of the page at `base` and yield the files."""
    for one in PAGE_PICTURES:
        window = {"width": one.width, "height": one.height}
        context = browser.new_context(viewport=window, color_scheme=one.scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(f"{base}/{one.address}")
        for _ in range(3):  # the first visit fills the caches
            page.locator(".hit").first.wait_for()
            page.reload()
        page.locator(".hit").first.wait_for()
        if one.act is not None:
            one.act(page)
        page.mouse.move(0, 0)
        page.wait_for_load_state("networkidle")
        path = directory / f"{one.name}.png"
        page.screenshot(path=path, animations="disabled")
        context.close()
        yield path


def main() -> None:
    """Run `python -m tests.e2e.pictures [URL] [DIRECTORY]`."""
    base = sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:8010"
    directory = Path(sys.argv[2]) if len(sys.argv) > 2 else IMAGES_DIRECTORY
    with open_chromium() as browser:
        for path in take_pictures(browser, base, directory):
            print(path)  # noqa: T201


if __name__ == "__main__":
    main()
