"""Publication of an encoder in the layout of sentence-transformers, as OpenSearch publishes its encoders.

`write_library_layout` saves a SparseEncoder of sentence-transformers with its query table: a Router whose document
route is the directory itself. `finish_publication` makes a publication of such a directory, with idf.json (the query
table, as the tokenisers of OpenSearch's plugin read it) and a model card (docs/decisions/0267).
`models.training.pipeline.publish_encoder` does both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from models.export.hub_import import ROUTER, read_json_object
from models.training.recipe import RECIPE_FILE, EncoderRecipe
from services.encoders.query_table import QUERY_WEIGHTS_FILE

IDF_FILE, CARD_FILE = "idf.json", "README.md"


class SavedEncoder(Protocol):
    """An encoder of sentence-transformers that can be saved."""

    def save(self, path: str, *, create_model_card: bool) -> None: ...


def write_library_layout(model: SavedEncoder, directory: Path) -> None:
    """Save an encoder in the library's layout, with the transformer in the directory itself.

    Its module has the id "", as in OpenSearch's doc-v2 and doc-v3, so the exporter and the next training find it there.
    """
    model.save(str(directory), create_model_card=False)
    router = read_json_object(directory / ROUTER)
    named = _library_names(router)
    for old, new in named.items():
        if new:
            (directory / old).rename(directory / new)
            continue
        for path in (directory / old).iterdir():
            path.rename(directory / path.name)
        (directory / old).rmdir()
    router["types"] = {named[old]: kind for old, kind in router["types"].items()}
    router["structure"] = {route: [named[old] for old in ids] for route, ids in router["structure"].items()}
    (directory / ROUTER).write_text(json.dumps(router, indent=2) + "\n", encoding="utf-8")


def _library_names(router: Mapping[str, Any]) -> dict[str, str]:
    """Return the folder of each module: "" for the transformer, else `ROUTE_NUMBER_CLASS` with the library's class."""
    names: dict[str, str] = {}
    for route, ids in router["structure"].items():
        for number, key in enumerate(ids):
            kind = router["types"][key].rpartition(".")[2]
            names[key] = "" if kind == "Transformer" else f"{route}_{number}_{kind}"
    return names


def finish_publication(directory: Path, licence: str, recipe: EncoderRecipe, facts: Mapping[str, Any]) -> None:
    """Replace our own files of a checkpoint's directory by idf.json and a model card.

    `facts` are the members of the manifest that the card quotes, if there is one.
    """
    (directory / QUERY_WEIGHTS_FILE).rename(directory / IDF_FILE)
    (directory / RECIPE_FILE).unlink()
    card = model_card(directory.name, licence, recipe, facts)
    (directory / CARD_FILE).write_text(card, encoding="utf-8")


def recipe_of_manifest(facts: Mapping[str, Any]) -> EncoderRecipe:
    """Return the recipe of an exported encoder: that of its training, with the form of the graph and its windows."""
    trained = ((facts.get("training") or {}).get("recipe") or {}).get("encoder") or {}
    graph = {name: facts[name] for name in ("activation", "expansion") if name in facts}
    # [CLS] and [SEP] are around the pieces of a window.
    longest = {"passage_pieces": int(facts["window"]["pieces"]) + 2}
    return EncoderRecipe.model_validate({"regulariser": "flops", **trained, **graph, **longest})


def model_card(name: str, licence: str, recipe: EncoderRecipe, facts: Mapping[str, Any]) -> str:
    """Return the README.md of a published encoder, with the front matter that hubs read."""
    best = (facts.get("training") or {}).get("best") or {}
    rows = "\n".join(
        f"| {collection} | {figures['sparse']:.3f} | {figures['bm25']:.3f} | {figures['weights_a_document']:.0f} |"
        for collection, figures in (best.get("collections") or {}).items()
    )
    evaluation = (
        f"\n## Evaluation\n\n| collection | NDCG@10 | BM25 | weights a document |\n|---|--:|--:|--:|\n{rows}\n"
        if rows
        else ""
    )
    return f"""---
license: {licence.lower()}
library_name: sentence-transformers
pipeline_tag: feature-extraction
tags: [sparse-encoder, inference-free, learned-sparse, opensearch]
---

# {name}

An inference-free sparse encoder: documents are encoded by a masked language model, queries by a table of weights
({IDF_FILE}). The score is the dot product.

```python
from sentence_transformers import SparseEncoder

model = SparseEncoder("{name}")
queries = model.encode_query(["how do I pause a program"])
documents = model.encode_document(["time.sleep(secs) suspends execution of the calling thread."])
print(model.similarity(queries, documents))
```

Query weighting: {recipe.query_weighting}. Expansion: {"yes" if recipe.expansion else "no"}. Activation:
{recipe.activation}. Regulariser: {recipe.regulariser}.
{evaluation}"""
