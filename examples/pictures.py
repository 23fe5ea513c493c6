"""The pictures of the search page in docs/images, of the demos: `make demo demo-talk KEEP=1`, then `make pictures`."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.chromium import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = Path(__file__).parents[1] / "docs" / "images"
QUESTION = "?index=stdlib&q=make+a+temporary+folder"
AVERAGE = "?index=stdlib&q=average+of+some+numbers"
SIGNAL = "?index=talk&q=weak+phone+signal+in+the+house"


@dataclass(frozen=True)
class Picture:
    """What is looked at and in which window; `act` does something on the page before it is taken."""

    name: str
    address: str
    width: int = 1280
    height: int = 860
    scheme: str = "light"
    act: Callable[["Page"], None] | None = None


def _why(page: "Page") -> None:
    page.locator("[data-act=why]").first.click()


def _why_sparse(page: "Page") -> None:
    page.locator(".column[data-side='1'] [data-act=why]").first.click()


def _request(page: "Page") -> None:
    page.locator("#ranking-toggle").click()
    page.locator("#request-toggle").click()


def _document(page: "Page") -> None:
    page.locator("dialog .whole").wait_for()


def _filters(page: "Page") -> None:
    page.locator("#filters-toggle").click()


def _marked(page: "Page") -> None:
    page.locator(".timeline-mark").nth(2).wait_for(state="attached")


PICTURES = (
    Picture("search-page", f"{AVERAGE}&mode=compare", act=_why_sparse),
    Picture("playground", f"{QUESTION}&f.kind=class&f.kind=function&share=0.6", height=1000, act=_why),
    Picture("playground-dark", f"{QUESTION}&prune=0.3&like=tempfile.mkdtemp", scheme="dark", height=1000, act=_request),
    Picture("playground-document", f"{AVERAGE}&doc=statistics", act=_document),
    Picture("playground-narrow", f"{QUESTION}&f.kind=function", width=390, height=844),
    Picture("playground-narrow-dark", QUESTION, width=390, height=844, scheme="dark", act=_filters),
    Picture("talk", SIGNAL, act=_marked),
    Picture("talk-transcript", f"{SIGNAL}&doc=syntax-169", act=_document),
)


def take(browser: "Browser", base: str, directory: Path) -> Iterator[Path]:
    """Takes every picture of the page at `base` and gives the files."""
    for one in PICTURES:
        window = {"width": one.width, "height": one.height}
        context = browser.new_context(viewport=window, color_scheme=one.scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(f"{base}/{one.address}")
        for _ in range(3):  # the first looks warm what is cached
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
    """`python -m examples.pictures [URL] [DIRECTORY]`."""
    base = sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:8010"
    directory = Path(sys.argv[2]) if len(sys.argv) > 2 else IMAGES
    with chromium() as browser:
        for path in take(browser, base, directory):
            print(path)


if __name__ == "__main__":
    main()
