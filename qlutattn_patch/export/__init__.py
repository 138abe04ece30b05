"""Export of edits in the patched tree to the templates."""
