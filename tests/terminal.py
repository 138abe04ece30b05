"""Commands at a terminal: a real one, as far as the program can tell."""

from __future__ import annotations

import os
import pty
import struct
import subprocess
import sys
import termios
from fcntl import ioctl

from helpers import ROOT


def shown_at(width: int, *argv: str, **variables: str) -> tuple[str, int]:
    """What a command shows on a terminal of that many columns, and its exit status."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    hidden = ("NO_COLOR", "FORCE_COLOR", "COLUMNS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"TERM": "xterm", "PYTHONPATH": str(ROOT), **variables}
    with subprocess.Popen(
        [sys.executable, "-m", "qlutattn_patch", *argv], env=environment, cwd=ROOT, stdout=theirs, stderr=theirs
    ) as child:
        os.close(theirs)
        said = b""
        try:
            while block := os.read(ours, 4096):
                said += block
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(ours)
    return said.decode().replace("\r\n", "\n"), child.returncode
