"""What every other room stands on and what knows nothing of the project: errors, files, git, programs, transactions."""
