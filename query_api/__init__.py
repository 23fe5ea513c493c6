"""The REST service: indexes, documents, jobs, search and the search page. No model runs here."""
