"""The REST paths, one module a resource."""
