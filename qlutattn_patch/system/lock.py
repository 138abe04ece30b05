"""One command at a time on a tree: the second waits a while, then refuses in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from qlutattn_patch.system import console
from qlutattn_patch.system.errors import ExpectedError

PATIENCE = 20.0


@contextmanager
def locked(path: Path, what: str, patience: float | None = None) -> Iterator[None]:
    """Hold the lock of `what`. The system releases it when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    patience = PATIENCE if patience is None else patience
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.step(f"Another qlutattn command works on {what}: waiting up to {patience:g} s.")
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            raise ExpectedError(
                f"Another qlutattn command still works on {what}.", "run the same command again when it has ended"
            ) from None
    try:
        yield
    finally:
        lock.release()
