"""Ctrl-C and termination signals: an exception, once, and not while a program is being started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
_held = False
_pending = False


def install() -> None:
    """Make these signals raise KeyboardInterrupt, so that everything cleans up."""
    for number in _ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)


def ignore() -> None:
    """Ignore these signals from now on."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def deferred() -> Iterator[None]:
    """Defer interrupts: a program that is started but not yet recorded could not be stopped."""
    global _held, _pending
    _held = True
    try:
        yield
    finally:
        _held = False
    if _pending:
        _pending = False
        _interrupt(signal.SIGINT, None)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _pending
    if _held:
        _pending = True
        return
    ignore()  # a second interrupt must not stop the cleanup
    raise KeyboardInterrupt
