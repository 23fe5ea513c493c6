"""Models that read a query and passages together. They need the `train` extra and run in the model process."""
