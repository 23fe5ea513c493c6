"""Talk: transcripts with their times and speakers, chapters, and where a player begins. No model, no I/O."""
