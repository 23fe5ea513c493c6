"""Promises under faults, on real processes, each beside the loss that it prevents. README.md says how to read it."""
