"""What every HTTP service of ours shares: how errors are answered, and how large a body may be."""
