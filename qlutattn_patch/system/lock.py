"""A lock on a tree: a second command waits, then fails with an ExpectedError."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from qlutattn_patch.system import console
from qlutattn_patch.system.errors import ExpectedError

PATIENCE = 20.0
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def locked(path: Path, what: str, patience: float | None = None, reading: bool = False) -> Iterator[None]:
    """Hold the lock of `what`; the system releases it whenever the process ends.

    With `reading`, what cannot be written needs no lock: nobody else changes it either.
    """
    patience = PATIENCE if patience is None else patience
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        console.step(f"Another qlutattn command is working on {what}: waiting up to {patience:g} s.")
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            raise ExpectedError(
                f"Another qlutattn command is still working on {what}.", "run the same command again when it has ended"
            ) from None
    except OSError as failure:
        if not reading or failure.errno not in _READ_ONLY:
            raise
    try:
        yield
    finally:
        lock.release()
