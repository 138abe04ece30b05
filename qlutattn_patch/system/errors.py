"""What can go wrong on purpose, and the exit code that each failure has."""

from __future__ import annotations

import errno

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


# What a system may answer at any time: no bug of ours. A missing file, or one where none should be, is not among them.
_OF_THE_SYSTEM = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM, errno.EROFS),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EBUSY, errno.ETXTBSY, errno.ENOLCK),
        *(errno.ELOOP, errno.ENAMETOOLONG),
    }
)


def from_system(failure: OSError, where: object = "A file") -> ExpectedError | None:
    """What the system refused, as a sentence; None if it says more about us than about the system."""
    if failure.errno not in _OF_THE_SYSTEM:
        return None
    what = failure.filename2 or failure.filename or where
    return ExpectedError(
        f"{what} cannot be read or written: {failure.strerror}.", "mend that, then run the same command again"
    )


class CheckFailed(Exception):
    """A check that ran and said no (drift, align). What was wrong has been printed already, or is the message."""
