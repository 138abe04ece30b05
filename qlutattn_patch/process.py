"""Run other programs: found or said to be missing, a failure shown whole and last."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qlutattn_patch.errors import ExpectedError


@dataclass(frozen=True)
class Result:
    """What a program left: its exit status and what it wrote."""

    status: int
    stdout: str
    stderr: str


def find(name: str) -> Path | None:
    """The path of a program, or None."""
    found = shutil.which(name)
    return Path(found) if found else None


def require(name: str, hint: str) -> Path:
    """The path of a program that must be there."""
    found = find(name)
    if found is None:
        raise ExpectedError(f"The program '{name}' is not on PATH.", hint)
    return found


def shown(argv: Sequence[str | Path]) -> str:
    """A command as a person would type it."""
    return shlex.join(str(arg) for arg in argv)


def capture(
    argv: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None, input: str | None = None
) -> Result:
    """Run a program and keep what it writes (UTF-8). The exit status is the caller's business."""
    done = subprocess.run(
        [str(arg) for arg in argv],
        cwd=cwd,
        env=_merged(env),
        input=input,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def stream(argv: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> int:
    """Run a program with everything it writes going to our stderr, as it comes. Returns its exit status."""
    done = subprocess.run(
        [str(arg) for arg in argv], cwd=cwd, env=_merged(env), stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
    )
    return done.returncode


def follow(
    argv: Sequence[str | Path],
    on_line: Callable[[str], None],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """Run a program and hand over each line that it writes, to stdout or stderr, as it comes."""
    with subprocess.Popen(
        [str(arg) for arg in argv],
        cwd=cwd,
        env=_merged(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                on_line(line.rstrip("\n"))
        except BaseException:
            child.terminate()  # an interrupt of ours alone (not typed at the terminal) must not leave it running
            raise
    return child.returncode


def _merged(env: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if env is None else {**os.environ, **env}
