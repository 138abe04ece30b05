"""Console output: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from qlutattn_patch.system.errors import named
from qlutattn_patch.system.table import Table

if TYPE_CHECKING:  # rich is slow to import, and most output is plain lines
    from rich.console import Console

COLORS = ("auto", "always", "never")
_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BEFORE_ESTIMATE = 3.0
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_STATES = {
    **dict.fromkeys(("PASS", "ok", "applied", "clean"), "green"),
    **dict.fromkeys(("FAIL", "FAILED", "MISSING", "failed"), "red"),
    **dict.fromkeys(("stale", "dirty", "absent"), "yellow"),
}


@dataclass
class _Settings:
    """The values of the options --quiet, --verbose and --color."""

    quiet: bool = False
    verbose: bool = False
    color: str = "auto"


_settings = _Settings()


def configure(quiet: bool = False, verbose: bool = False, color: str = "auto") -> None:
    """Set verbosity and colours; without arguments, reset them."""
    global _settings
    _settings = _Settings(quiet, verbose, color)


def be_quiet() -> None:
    """Print only errors and their context to stderr."""
    _settings.quiet, _settings.verbose = True, False


def be_verbose() -> None:
    """Print each program that is run to stderr."""
    _settings.verbose, _settings.quiet = True, False


def set_color(when: str) -> None:
    """Use colours always, never, or (auto) on a terminal unless the environment overrides it."""
    _settings.color = when


def is_quiet() -> bool:
    """Whether only errors are printed to stderr."""
    return _settings.quiet


def wants_color(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream gets colours: --color, then NO_COLOR, CLICOLOR_FORCE, FORCE_COLOR and CLICOLOR, then isatty."""
    if _settings.color != "auto":
        return _settings.color == "always"
    if environ.get("NO_COLOR"):
        return False
    if any(environ.get(name, "0") not in ("", "0") for name in ("CLICOLOR_FORCE", "FORCE_COLOR")):
        return True
    if environ.get("CLICOLOR") == "0" or environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def step(text: str) -> None:
    """Print the current step to stderr."""
    if not _settings.quiet:
        _print(f"{_styled('·', 'bold')} {text}")


def warn(text: str) -> None:
    """Print a warning to stderr."""
    if not _settings.quiet:
        _print(f"{_styled('warning:', 'yellow')} {text}")


def error(cause: str, hint: str | None = None) -> None:
    """Print an error and the next command to type to stderr."""
    _print(f"{_styled('error:', 'red')} {cause}")
    if hint:
        _print(f"  next: {hint}")


def ran(argv: Sequence[str | Path], cwd: Path | None = None) -> None:
    """With --verbose, print the command line of a program that is run to stderr."""
    if _settings.verbose:
        there = f"cd {shlex.quote(str(cwd))} && " if cwd else ""
        _print(_styled(f"$ {there}{shlex.join(str(arg) for arg in argv)}", "dim"))


def out(text: str) -> None:
    """Print a result line to stdout."""
    _write(text + "\n")


def out_json(value: Any) -> None:
    """Print a JSON document to stdout, and nothing else."""
    _write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def out_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = (), groups: int = 0
) -> None:
    """Print a table to stdout that fits the terminal (`table.Table`); states are coloured."""
    table = Table(tuple(columns), tuple(tuple(row) for row in rows), frozenset(right), groups)

    def paint(text: str, cell: str) -> str:
        return _painted(text, "bold" if cell == "heading" else _STATES.get(cell))

    _write("".join(f"{line}\n" for line in table.lines(_terminal_width(), paint)))


def state(text: str) -> str:
    """A state or a verdict, such as PASS or stale, in its colour if stdout has colours."""
    return _painted(text, _STATES.get(text))


def _painted(text: str, style: str | None) -> str:
    if style is None or not wants_color(sys.stdout):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def _terminal_width() -> int | None:
    """The width of stdout; None where it is no terminal and COLUMNS is not set: nothing is to be cut or wrapped."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    return None


@contextmanager
def spinner(text: str) -> Iterator[None]:
    """Show a spinner on stderr during a long task; a plain line if stderr is not a terminal."""
    if _is_live():
        with _rich(sys.stderr).status(_plain(text)):
            yield
    else:
        step(text)
        yield


@contextmanager
def progress(text: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show the progress of a long task on stderr: call the yielded function with (done, total, current step).

    A terminal gets one updating line; other outputs get occasional lines.
    """
    start = time.monotonic()

    def described(done: int, total: int, doing: str) -> str:
        return " · ".join(part for part in (f"{text} {done}/{total}", time_left(done, total, start), doing) if part)

    if _is_live():
        with _rich(sys.stderr).status(_plain(text)) as status:
            width = shutil.get_terminal_size().columns - 2  # beside the spinner
            yield lambda done, total, doing: status.update(_plain(described(done, total, doing)[:width]))
        return
    step(text)
    last = start

    def print_occasionally(done: int, total: int, doing: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            step(described(done, total, doing))

    yield print_occasionally


def time_left(done: int, total: int, start: float) -> str:
    """About how long a task takes that began at `start`, if it goes on as it did; empty at first."""
    passed = time.monotonic() - start
    if not 0 < done < total or passed < _SECONDS_BEFORE_ESTIMATE:
        return ""
    seconds = passed / done * (total - done)
    return f"{seconds:.0f} s left" if seconds < 90 else f"{seconds / 60:.0f} min left"


def show(lines: Sequence[str]) -> None:
    """Print the output of a failed program to stderr, unchanged."""
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def _write(text: str) -> None:
    with named("standard output"):
        sys.stdout.write(text)


def _print(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _styled(text: str, style: str) -> str:
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if wants_color(sys.stderr) else text


def _is_live() -> bool:
    """Whether an updating line can be shown; output of other programs (--verbose) would break it."""
    return sys.stderr.isatty() and not _settings.quiet and not _settings.verbose


def _rich(stream: TextIO, width: int | None = None) -> Console:
    from rich.console import Console

    color = wants_color(stream)
    return Console(
        file=stream,
        width=width,
        highlight=False,
        soft_wrap=stream is sys.stderr,
        force_terminal=stream.isatty(),
        color_system="standard" if color else None,
        no_color=not color,
    )


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
