"""Training of inference-free sparse encoders. This package imports no heavy library; its modules that need torch do."""
