"""Ingestion: the requests that add, replace, delete and retry documents."""
