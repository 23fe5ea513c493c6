"""The machine that a process runs on: its directories, accounts and locks, and Maven as a client that fetches files."""
