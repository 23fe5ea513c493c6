"""The operator's hand on an index: rules as values, and what they do to one query."""
