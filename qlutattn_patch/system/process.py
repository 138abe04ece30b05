"""Find and run other programs, and show their full output if they fail."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from qlutattn_patch.system import console, interrupts
from qlutattn_patch.system.errors import ExpectedError

_PATIENCE = 5.0  # seconds that an interrupted program has to clean up
_KILL_PATIENCE = 10.0  # a killed program needs the processor once more to end, and may have to wait for it


@dataclass(frozen=True)
class Result:
    """The result of a program: its exit status and output."""

    status: int
    stdout: str
    stderr: str


def find(name: str) -> Path | None:
    """The path of a program, or None."""
    found = shutil.which(name)
    return Path(found) if found else None


def require(name: str, hint: str) -> Path:
    """The path of a required program."""
    found = find(name)
    if found is None:
        raise ExpectedError(f"The program '{name}' is not on PATH.", hint)
    return found


def shown(argv: Sequence[str | Path]) -> str:
    """A command line, quoted for a shell."""
    return shlex.join(str(arg) for arg in argv)


def capture(
    argv: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None, input: str | None = None
) -> Result:
    """Run a program and capture its output (UTF-8); the caller checks the exit status."""
    stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
    with _started(argv, cwd, env, stdin, subprocess.PIPE, subprocess.PIPE) as child:
        stdout, stderr = child.communicate(input)
    return Result(child.returncode, stdout, stderr)


def stream(argv: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> int:
    """Run a program and print its output to stderr as it comes, or (quiet) only if it fails."""
    if console.is_quiet():
        lines: list[str] = []
        status = follow(argv, lines.append, cwd, env)
        console.show(lines if status else [])
        return status
    with _started(argv, cwd, env, subprocess.DEVNULL, sys.stderr, None) as child:
        return child.wait()


def follow(
    argv: Sequence[str | Path],
    on_line: Callable[[str], None],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """Run a program and call `on_line` with each line of its stdout and stderr as it comes."""
    with _started(argv, cwd, env, subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT) as child:
        assert child.stdout is not None
        for line in child.stdout:
            on_line(line.rstrip("\n"))
        return child.wait()


@contextmanager
def _started(
    argv: Sequence[str | Path],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    stdin: int,
    stdout: int | IO[str],
    stderr: int | None,
) -> Iterator[subprocess.Popen[str]]:
    """A running program, stopped at the end with all its children, also on an interrupt."""
    console.ran(argv, cwd)
    child = None
    try:
        with interrupts.deferred():
            child = subprocess.Popen(
                [str(arg) for arg in argv],
                cwd=cwd,
                env=_merged(env),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                encoding="utf-8",
                errors="replace",
                # Its own process group, so that any interrupt reaches all of it, passed on by this process.
                start_new_session=True,
            )
        yield child
    except BaseException:
        if child is not None:
            _end(child)
        raise
    finally:
        if child is not None:
            with child:  # closes the pipes, and waits
                pass


def _end(child: subprocess.Popen[str]) -> None:
    """Interrupt a program's group, so that compilers remove partial output; kill what remains."""
    for number, patience in ((signal.SIGINT, _PATIENCE), (signal.SIGKILL, _KILL_PATIENCE)):
        until = time.monotonic() + patience
        try:
            os.killpg(child.pid, number)
            while time.monotonic() < until:
                child.poll()  # reaps it; otherwise the group would exist for ever
                os.killpg(child.pid, 0)
                time.sleep(0.02)
        except (ProcessLookupError, PermissionError):  # macOS raises the latter for a group whose last member is ending
            break
    child.poll()


def _merged(env: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if env is None else {**os.environ, **env}
