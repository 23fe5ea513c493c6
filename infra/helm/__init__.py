"""The Helm chart: its generated files, and rendering without a cluster."""
