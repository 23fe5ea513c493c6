"""The search page: a few static files, served by the API beside its own endpoints."""
