"""Curation: an operator's rules for an index (synonyms, results, terms, boosts) and their effect on a query."""
