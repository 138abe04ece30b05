"""Faults at the file-system calls of a command: each one is counted, and the n-th fails or is the process's last."""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Calls that change nothing: a kill there leaves what a kill at the next change leaves, and a full disk does not matter.
READS = ("stat", "lstat", "listdir", "scandir", "read", "open to read", "flock")
FULL, KILL = "ENOSPC", "kill"  # a disk that is full stays so; whatever else fails does so once
KINDS = {FULL: errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES, KILL: 0}


@dataclass(frozen=True)
class Call:
    """A file-system call: what it does, and to which file."""

    what: str
    path: str
    site: str = ""  # the lines of ours that it comes from

    @property
    def is_read(self) -> bool:
        return self.what in READS


@dataclass(frozen=True)
class Outcome:
    """How a command ended (None: it was killed), what it said, and the calls that it made."""

    code: int | None
    said: str
    calls: tuple[Call, ...]


def run(work: Callable[[], int], below: Sequence[Path], nth: int = 0, kind: str = "") -> Outcome:
    """Do work in a process of its own, with a fault at the nth call below these folders (0: at none)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(writer, work, tuple(str(folder) for folder in below), nth, kind)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGKILL:
        return Outcome(None, "", ())
    assert status == 0, f"the child ended with {status}"
    raw = json.loads(data)
    return Outcome(raw["code"], raw["said"], tuple(Call(*call) for call in raw["calls"]))


def _child(writer: int, work: Callable[[], int], below: tuple[str, ...], nth: int, kind: str) -> None:
    """The child's life; nothing of the parent's (pytest's capture, its atexit) may run in it."""
    status = 99
    try:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            faults = _Faults(below, nth, kind)
            faults.install()
            try:
                code = work()
            except Exception:
                code = -1
                said.write(traceback.format_exc())
            faults.stop()
        os.write(writer, json.dumps({"code": code, "said": said.getvalue(), "calls": faults.calls}).encode())
        status = 0
    finally:
        os._exit(status)


class _Faults:
    """Hears of every file-system call below a folder, and strikes at the nth."""

    def __init__(self, below: tuple[str, ...], nth: int, kind: str) -> None:
        self._below = below
        self._left = nth
        self._kind = kind
        self._on = False
        self.calls: list[tuple[str, str, str]] = []

    def install(self) -> None:
        """From here on, in this process."""
        sys.addaudithook(self._audit)
        for name in ("stat", "lstat", "fsync", "sendfile"):
            self._wrap(name)
        builtins.open = io.open = self._open
        self._on = True

    def stop(self) -> None:
        self._on = False

    def is_ours(self, path: Any, dir_fd: Any = None) -> bool:
        """Whether a path or an open file is below the folder; one that is relative to an open folder is."""
        if isinstance(path, int):
            with self.paused():
                try:
                    path = Path(f"/proc/self/fd/{path}").readlink()
                except OSError:
                    return False
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        text = str(path)
        return text.startswith(self._below) or (isinstance(dir_fd, int) and dir_fd >= 0)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        before, self._on = self._on, False
        try:
            yield
        finally:
            self._on = before

    def step(self, what: str, path: Any) -> None:
        """Count a call; the nth ends in a fault."""
        if not self._on:
            return
        if not self._left:
            self.calls.append((what, str(path), _site()))
            return
        if self._left > 1:
            self._left -= 1
            return
        if self._kind == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._kind != FULL:
            self._on = False
        elif what in (*READS, "remove", "rmdir"):  # a full disk can be read, and emptied
            return
        number = KINDS[self._kind]
        raise OSError(number, os.strerror(number), str(path))

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(path, (str, bytes)) and self.is_ours(path):
                writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                self.step("open to write" if writes else "open to read", path)
        elif event == "subprocess.Popen":
            self.step("start a program", " ".join(str(word) for word in args[1])[-80:])
        elif event == "fcntl.flock":
            if args[1] & 3 != 8:
                self.step("flock", args[0])
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.utime", "os.link"):
            numbers = [arg for arg in args[1:] if isinstance(arg, int)]
            if self.is_ours(args[0], numbers[-1] if event != "os.mkdir" and numbers else None):
                self.step(event.removeprefix("os."), args[0])
        elif event in ("os.listdir", "os.scandir") and self.is_ours(args[0]):
            self.step(event.removeprefix("os."), args[0])

    def _wrap(self, name: str) -> None:
        real = getattr(os, name)

        def wrapped(target: Any, *args: Any, **more: Any) -> Any:
            if self._on and self.is_ours(target, more.get("dir_fd")):
                self.step(name, target)
            # nothing here need outlive the machine
            return None if name == "fsync" else real(target, *args, **more)

        setattr(os, name, wrapped)

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *args: Any, **more: Any) -> Any:
        """`open` with a raw file whose reads, writes and closing are counted."""
        if not self._on or isinstance(file, int) or not self.is_ours(file):
            return _io_open(file, mode, buffering, *args, **more)
        closefd, opener = more.pop("closefd", True), more.pop("opener", None)
        raw = _File(self, file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        kind = io.BufferedRandom if "+" in mode else io.BufferedReader if "r" in mode else io.BufferedWriter
        binary = kind(raw)
        return binary if "b" in mode else io.TextIOWrapper(binary, *args, **more)


def _site() -> str:
    frame, lines = sys._getframe(2), []
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("qlutattn_patch."):
            lines.append(f"{Path(frame.f_code.co_filename).stem}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return " ".join(lines)


_io_open = io.open


class _File(io.FileIO):
    """A file whose reads and writes are calls that can fail."""

    def __init__(self, faults: _Faults, file: Any, mode: str, closefd: bool, opener: Any) -> None:
        self._faults = faults
        self._name = file
        super().__init__(file, mode, closefd, opener)

    def write(self, data: Any) -> int:
        try:
            self._faults.step("write", self._name)
        except OSError:
            super().write(memoryview(data)[: len(data) // 2])  # a disk is full in the middle of a file
            raise
        return super().write(data)

    def readall(self) -> Any:
        self._faults.step("read", self._name)
        return super().readall()

    def readinto(self, buffer: Any) -> Any:
        self._faults.step("read", self._name)
        return super().readinto(buffer)

    def close(self) -> None:
        was_open = not self.closed and self.writable()
        super().close()
        if was_open:
            self._faults.step("close", self._name)
