"""`sparsewell load` and `sparsewell export`: sources of documents, destinations, checkpoints of a load.

A source (`source`, `tabular`, `text_files`) yields rows, `field_map` makes documents of their columns, `destinations`
sends batches to the API or the bulk queue, and `checkpoint` saves the position so that a stopped load can be resumed.
"""
