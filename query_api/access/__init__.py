"""Access control: authentication, authorisation and rate limits."""
