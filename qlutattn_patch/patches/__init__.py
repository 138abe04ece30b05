"""Generation, checks and application of the patch set."""
