"""Expected failures, and the exit codes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_OK = 0
EXIT_CHECK_FAILED = 1
EXIT_USAGE = 2
EXIT_EXPECTED = 3
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


class ExpectedError(Exception):
    """A failure that the user can fix: one sentence with the cause, and the next command to type."""

    def __init__(self, cause: str, hint: str | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint


class UsageError(ExpectedError):
    """A wrong value on the command line, known before any work has begun."""


# Errors that the system may raise at any time; missing or existing files are not among them: those are internal errors.
_OF_THE_SYSTEM = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM, errno.EROFS),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EBUSY, errno.ETXTBSY, errno.ENOLCK),
        *(errno.ELOOP, errno.ENAMETOOLONG),
    }
)


def from_system(failure: OSError, where: object = "A file") -> ExpectedError | None:
    """The ExpectedError for an error of the system; None if it is an internal error."""
    if failure.errno not in _OF_THE_SYSTEM:
        return None
    what = failure.filename2 or failure.filename or where
    return ExpectedError(
        f"{what} cannot be read or written: {failure.strerror}.", "fix that, then run the same command again"
    )


@contextmanager
def named(path: object) -> Iterator[None]:
    """Give an error of the system the path that it is about; errors of writing have none."""
    try:
        yield
    except OSError as failure:
        if failure.filename is None and failure.errno is not None:
            failure.filename = str(path)
        raise


class CheckFailed(Exception):
    """A check that failed (drift, align); the findings are already printed, or are the message."""
