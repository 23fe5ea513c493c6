"""Talks: transcripts with times and speakers, chapters, and links into a recording. No model, no I/O."""
