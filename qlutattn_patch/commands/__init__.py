"""One module per command: each parses, calls a plain function, and prints."""
