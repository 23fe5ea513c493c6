"""The stages of a search: validation, query vector, retrieval, fusion, reranking and response. `pipeline` runs them."""
