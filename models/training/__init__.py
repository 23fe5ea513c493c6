"""Training of inference-free sparse encoders. Nothing heavy is imported here: the parts that need torch say so."""
