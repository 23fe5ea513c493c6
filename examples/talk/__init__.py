"""The demo over six open talks: `make demo-talk`."""

from pathlib import Path

TRANSCRIPTS = Path(__file__).with_name("transcripts")
