"""The Helm chart: what of it is generated, how it is rendered without a cluster."""
