"""Edits made in the patched tree, carried back to the templates."""
