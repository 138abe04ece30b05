"""align_attn run, and its dump checked in numpy."""
