"""Workflows of several steps: run, status, matrix, bisect, rebase."""
