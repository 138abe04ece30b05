"""The work tree of llama.cpp: vendored, patched, reverted."""
