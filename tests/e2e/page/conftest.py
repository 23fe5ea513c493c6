"""A live service with a few encoded documents, and a real browser that looks at it."""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from infra import processes
from infra.ports import free_port
from infra.stack.parts import service_parts, settings_environment, wait_until_ready
from query_api.app import create_app
from services.settings import Settings

# The machine may be closed to the outside: without these, Chromium tries many of its own hosts at every start.
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
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
HOSTILE = '<img src=x onerror="window.hacked=1">'
FILLER = "The harbour lay quiet and nobody spoke of weather. "
LONG_TEXT = "🫖🫖🫖 " + FILLER * 40 + "A lighthouse keeper counts his lamps. " + FILLER * 20
DOCUMENTS = [
    {"id": "folder", "title": "A temporary folder", "text": "Makes a folder, temporary and private, for one program."},
    {"id": "files", "title": "Sweeping up", "text": "Removes temporary files once nobody needs what is in them."},
    {
        "id": "kettle",
        "title": "The kettle",
        "text": "The kettle whistles. Lift it off the fire.",
        "metadata": {"year": 1931},
    },
    {"id": "patience", "text": "She waits. Nobody comes.", "metadata": {"kind": ["novel", "short"], "year": 1922}},
    {"id": "harbour/no 7?#a", "title": "Harbour notes", "text": LONG_TEXT},
    {
        "id": HOSTILE,
        "title": "<script>window.hacked=1</script> intruder",
        "text": f"An intruder says {HOSTILE} and <svg onload=window.hacked=1> & <b>bold</b>.",
        "metadata": {"kind": HOSTILE},
    },
]


@dataclass
class Visit:
    """A page and what its browser noticed."""

    page: Page
    base: str
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def go(self, address: str = "") -> Page:
        self.page.goto(f"{self.base}/{address}")
        return self.page


@pytest.fixture(scope="package")
def seeded(
    opensearch_url: str,
    redis_server_url: str,
    redis_database_numbers: Iterator[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """Address of an API with the index `notes`, whose documents a worker has encoded, and the empty index `blank`."""
    settings = Settings(
        opensearch_url=opensearch_url,
        redis_url=f"{redis_server_url}/{next(redis_database_numbers)}",
        index_prefix=f"p{secrets.token_hex(6)}",
        encoder="standin",
        api_port=free_port(),
        worker_concurrency=1,
    )
    directory = tmp_path_factory.mktemp("page")
    server = uvicorn.Server(
        uvicorn.Config(create_app(settings), host=settings.api_host, port=settings.api_port, log_config=None, ws="none")
    )
    thread = threading.Thread(target=server.run, name="page-api")
    thread.start()
    base = f"http://{settings.api_host}:{settings.api_port}"
    try:
        with httpx.Client(base_url=base, timeout=30, trust_env=False) as api:
            until(lambda: server.started, "the API starts")
            fields = {"kind": "keyword", "year": "number"}
            declared = {"fields": fields, "window": {"pieces": 64, "overlap": 8}}
            api.put("/v1/indexes/notes", json=declared).raise_for_status()
            api.put("/v1/indexes/blank", json={}).raise_for_status()
            worker = start_worker(settings, directory)
            try:
                answer = api.post("/v1/indexes/notes/documents", json=DOCUMENTS).raise_for_status().json()
                assert answer["rejected"] == []
                job = f"/v1/jobs/{answer['job']['id']}"
                until(lambda: api.get(job).json()["states"]["encoded"] == len(DOCUMENTS), "the documents are encoded")
            finally:
                processes.stop(worker, 15)
            yield base
            for name in ("notes", "blank"):
                api.delete(f"/v1/indexes/{name}").raise_for_status()
    finally:
        server.should_exit = True
        thread.join(30)
        httpx.delete(f"{opensearch_url}/{settings.index_prefix}_jobs", trust_env=False)


def start_worker(settings: Settings, directory: Path) -> processes.Child:
    part = next(part for part in service_parts(settings) if part.name == "worker")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SPARSEWELL_")}
    child = processes.start(
        "worker",
        part.command,
        directory / "worker.log",
        environment={**inherited, **settings_environment(settings)},
        directory=directory,
        tied=True,
    )
    wait_until_ready(part, child, 60)
    return child


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:.0f} s still waiting until {what}"
        time.sleep(0.05)


# Not for the whole session: Playwright's synchronous face keeps an event loop in this thread while it lives, and
# asynchronous tests elsewhere need the thread to themselves.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """`open_page(base, **options)`: a fresh browser profile. In the end nothing may have gone wrong on any page."""
    visits: list[Visit] = []

    def opened(base: str, *, width: int = 1280, height: int = 900, scheme: str = "light") -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
        visit = Visit(context.new_page(), base)
        visit.page.set_default_timeout(10_000)
        visit.page.on("request", lambda request: visit.requests.append(request.url))
        visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
        visit.page.on("console", lambda message: visit.errors.append(message.text) if message.type == "error" else None)
        visit.page.on("dialog", lambda dialog: (visit.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        visits.append(visit)
        return visit

    yield opened
    for visit in visits:
        # A refusal by the API is reported here too; the tests look at what the page makes of it.
        errors = [error for error in visit.errors if not error.startswith("Failed to load resource")]
        foreign = [url for url in visit.requests if not url.startswith(visit.base + "/")]
        hacked = visit.page.evaluate("window.hacked")
        visit.page.context.close()
        assert (errors, foreign, hacked) == ([], [], None)


@pytest.fixture
def visit(seeded: str, open_page: Callable[..., Visit]) -> Visit:
    """A browser window on the seeded service."""
    return open_page(seeded)
