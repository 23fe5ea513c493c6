"""One search, stage by stage: limits, query vector, lists, fusion, shape (`pipeline` puts them in order)."""
