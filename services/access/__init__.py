"""Access control: API keys, principals and their rights, and the access mode. No I/O."""
