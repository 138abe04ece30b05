"""Utilities independent of the project: errors, files, git, programs, transactions."""
