"""Search with the Python client: load four notes, then search with a filter, an explanation and pages.

make up
python -m examples.search_from_python
"""

import sys
from contextlib import suppress

from sparsewell_client import Client, NotFound

EXAMPLE_NOTES = [
    {
        "id": "fever",
        "title": "Fever",
        "text": "The physician prescribes drugs against the infection.",
        "metadata": {"year": 2021},
    },
    {"id": "chair", "title": "Chairs", "text": "A carpenter repairs old furniture.", "metadata": {"year": 2023}},
    {"id": "cough", "title": "Cough", "text": "Doctors advise syrup and rest.", "metadata": {"year": 2024}},
    {"id": "dose", "title": "Doses", "text": "How much of a drug a patient takes.", "metadata": {"year": 2019}},
]
INDEX_NAME = "example-notes"


def main(address: str = "http://127.0.0.1:8010") -> None:
    with Client(address, retry_for=30) as client:
        with suppress(NotFound):
            client.delete_index(INDEX_NAME)
        client.create_index(INDEX_NAME, {"fields": {"year": "number"}})
        job = client.add(INDEX_NAME, EXAMPLE_NOTES).job
        finished = client.wait(job.id)
        print(f"{finished.states.get('encoded', 0)} of {finished.accepted} notes are encoded")

        query = "what medicine helps"
        recent = {"field": "year", "range": {"gte": 2020}}
        for hit in client.search(INDEX_NAME, query, filter=recent).hits:
            print(f"{hit.score:.3f}  {hit.title}")

        best = client.search(INDEX_NAME, query, mode="sparse", explain=True).hits[0]
        for why in (best.why or [])[:3]:
            print(f"  {why.contribution:.2f} by {why.piece}{' (expansion)' if why.expansion else ''}")

        titles = [hit.title for page in client.pages(INDEX_NAME, query, size=2) for hit in page.hits]
        print("all pages:", ", ".join(title or "" for title in titles))
        client.delete_index(INDEX_NAME)


if __name__ == "__main__":
    main(*sys.argv[1:2])
