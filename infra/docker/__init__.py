"""The images: a Dockerfile with the targets `api` and `worker`, and the health check that runs inside them."""
