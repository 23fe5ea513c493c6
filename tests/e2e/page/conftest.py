"""Provide a live service with a few encoded documents, and a real browser."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

from infra import processes
from infra.ports import find_free_port
from infra.stack import service_processes, settings_environment, wait_until_ready
from models.dense import load_dense_encoder
from models.serving import ModelPool, create_model_app
from services.encoders.catalogue import STANDIN_NAME, list_dense_encoders
from services.settings import Settings
from tests.e2e.pictures import open_chromium
from tests.preloaded import start_program

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

GENRES = ["sea", "crime", "travel", "garden"]
# A library: 36 books about islands and storms, with one field of every type.
BOOKS = [
    {
        "id": f"book-{n:02}",
        "title": f"{('Island', 'Storm', 'Harbour')[n % 3]} {n}",
        "text": f"A story of an island, volume {n}. " + ("A storm comes up over the sea. " * (n % 3)),
        "metadata": {
            "genre": GENRES[: n % 4 + 1],
            "pages": 100 + 10 * n,
            "published": f"{1990 + n % 6}-0{n % 9 + 1}-15",
            "lent": n % 4 == 0,
            "blurb": "for long evenings" if n % 2 else "for the train",
        },
    }
    for n in range(36)
]
TOPICS = [
    ("Bread", "The baker lights his oven and kneads a dough of rye.", "Ada"),
    ("Boats", "The sailor mends a rope and waits for the tide.", "Bo"),
    ("Bees", "The keeper lifts a frame of honey out of the hive.", "Ada"),
]
# A talk with three chapters of a minute (twelve segments each), and a talk whose chapters the service computes.
SPOKEN = [
    {"start": 60 * part + 5 * n, "end": 60 * part + 5 * n + 5, "speaker": speaker, "text": f"{text} Sentence {n}."}
    for part, (_, text, speaker) in enumerate(TOPICS)
    for n in range(12)
]
TALKS = [
    {
        "id": "trades/1",
        "kind": "talk",
        "title": "Three trades",
        "description": "A baker, a sailor and a keeper of bees",
        "url": "https://example.org/trades.mp3",
        "segments": SPOKEN,
        "chapters": [{"startTime": 60 * part, "title": title} for part, (title, _, _) in enumerate(TOPICS)],
        "metadata": {"show": "Trades"},
    },
    {"id": "plain", "kind": "talk", "text": f"{TOPICS[1][1]}\n\n<b onclick=window.hacked=1>Bold</b> words on rope."},
    {
        "id": "loom",
        "kind": "talk",
        "segments": [{"start": 6 * n, "end": 6 * n + 6, "text": f"The weaver threads loom {n}."} for n in range(300)],
        "chapters": [{"startTime": 6 * n, "title": f"Loom {n}"} for n in range(300)],
    },
    {"id": "hebrew", "kind": "talk", "title": "שלום", "text": "היום נדבר על מגדלור."},
    {"id": "note", "title": "A note", "text": "A rope lies on the quay, and nobody talks."},
]
INDEXES = {
    "talks": ({"talk": {}, "fields": {"show": "keyword"}, "window": {"pieces": 64, "overlap": 8}}, TALKS),
    "notes": ({"fields": {"kind": "keyword", "year": "number"}, "window": {"pieces": 64, "overlap": 8}}, DOCUMENTS),
    "shelf": (
        {
            "fields": {
                "genre": "keyword",
                "pages": "number",
                "published": "date",
                "lent": "boolean",
                "blurb": "text",
            },
            "dense": STANDIN_NAME,
            "windows": "both",
        },
        BOOKS,
    ),
}


@dataclass
class Visit:
    """A page and the events that its browser recorded."""

    page: Page
    base: str
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def go(self, address: str = "") -> Page:
        self.page.goto(f"{self.base}/{address}")
        return self.page


@pytest.fixture(scope="package")
def seeded(
    new_service: Callable[..., AbstractContextManager[tuple[httpx.Client, Settings]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """Yield the address of an API with the indexes of INDEXES and the empty index `blank`.

    A worker has encoded the documents.
    """
    models = model_process()
    thread = threading.Thread(target=models.run, name="page-models")
    thread.start()
    try:
        with new_service(model_url=f"http://127.0.0.1:{models.config.port}", model_timeout=15.0) as (api, settings):
            until(lambda: models.started, "the model process starts")
            fill(api, settings, tmp_path_factory.mktemp("page"))
            yield f"http://{settings.api_host}:{settings.api_port}"
            for name in (*INDEXES, "blank"):
                api.delete(f"/v1/indexes/{name}").raise_for_status()
    finally:
        models.should_exit = True
        thread.join(30)


def model_process() -> uvicorn.Server:
    """Return a model process with the stand-in of the dense encoders on a free port. The test starts it."""
    held = ModelPool(
        {STANDIN_NAME: load_dense_encoder(list_dense_encoders(Settings())[STANDIN_NAME], Path("unused"))}, {}
    )
    return uvicorn.Server(uvicorn.Config(create_model_app(held), port=find_free_port(), log_config=None, ws="none"))


def fill(api: httpx.Client, settings: Settings, directory: Path) -> None:
    """Create the indexes, start a worker, wait until it has encoded their documents, and stop it."""
    api.put("/v1/indexes/blank", json={}).raise_for_status()
    worker = start_worker(settings, directory)
    try:
        for name, (declared, documents) in INDEXES.items():
            api.put(f"/v1/indexes/{name}", json=declared).raise_for_status()
            answer = api.post(f"/v1/indexes/{name}/documents", json=documents).raise_for_status().json()
            assert answer["rejected"] == []
            wait_until_encoded(api, f"/v1/jobs/{answer['job']['id']}", len(documents))
    finally:
        processes.stop_child(worker, 0)


def wait_until_encoded(api: httpx.Client, job: str, documents: int) -> None:
    until(lambda: api.get(job).json()["states"]["encoded"] == documents, "the documents are encoded")


def start_worker(settings: Settings, directory: Path) -> processes.ChildProcess:
    service = next(service for service in service_processes(settings) if service.name == "worker")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SPARSEWELL_")}
    environment = {**inherited, **settings_environment(settings)}
    _, *arguments = service.command
    child = start_program("worker", arguments, directory / "worker.log", environment=environment, directory=directory)
    wait_until_ready(service, child, 60)
    return child


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:.0f} s still waiting until {what}"
        time.sleep(0.05)


# The fixture does not last for the session. Playwright's synchronous interface keeps an event loop in this thread, and
# asynchronous tests in other modules need the thread without one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=30_000)
    with open_chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Provide `open_page(base, **options)`: a fresh browser profile. Assert at the end that no page had an error."""
    visits: list[Visit] = []

    def opened(base: str, *, width: int = 1280, height: int = 900, scheme: str = "light") -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
        visit = Visit(context.new_page(), base)
        visit.page.set_default_timeout(30_000)
        visit.page.on("request", lambda request: visit.requests.append(request.url))
        visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
        visit.page.on("console", lambda message: visit.errors.append(message.text) if message.type == "error" else None)
        visit.page.on("dialog", lambda dialog: (visit.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        visits.append(visit)
        return visit

    yield opened
    for visit in visits:
        # The browser also reports refusals by the API here. The tests check how the page shows them.
        errors = [error for error in visit.errors if not error.startswith("Failed to load resource")]
        foreign = [url for url in visit.requests if not url.startswith(visit.base + "/")]
        hacked = visit.page.evaluate("window.hacked")
        visit.page.context.close()
        assert (errors, foreign, hacked) == ([], [], None)


@pytest.fixture
def visit(seeded: str, open_page: Callable[..., Visit]) -> Visit:
    """Return a browser window on the seeded service."""
    return open_page(seeded)
