"""What can go wrong on purpose, and the exit code that each failure has."""

from __future__ import annotations

EXIT_OK = 0
EXIT_CHECK_FAILED = 1
EXIT_USAGE = 2
EXIT_EXPECTED = 3
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


class ExpectedError(Exception):
    """A failure that the user can mend: one sentence that names the cause, and the next command to type."""

    def __init__(self, cause: str, hint: str | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint


class CheckFailed(Exception):
    """A check that ran and said no (drift, align). What was wrong has been printed already, or is the message."""
