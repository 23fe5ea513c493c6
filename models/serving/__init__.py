"""The model process: what a search may ask of a model, over HTTP. Optional; searches work without it."""
