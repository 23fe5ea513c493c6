"""Six open talks, and questions that they answer: `make demo-talk`."""

from pathlib import Path

TRANSCRIPTS = Path(__file__).with_name("transcripts")
