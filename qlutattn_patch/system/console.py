"""Console output: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from qlutattn_patch.system.errors import named

if TYPE_CHECKING:  # rich is slow to import, and most output is plain lines
    from rich.console import Console

COLORS = ("auto", "always", "never")
_SECONDS_BETWEEN_LINES = 10.0
_STYLES = {"bold": "1", "dim": "2", "red": "31", "yellow": "33"}


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


def out_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table to stdout; the columns named in `right` are right-aligned."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = _rich(sys.stdout, None if sys.stdout.isatty() else 200)
    with console.capture() as captured:
        console.print(table)
    _write(captured.get())  # rich itself would exit with 1 if the reader closes stdout


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
    if _is_live():
        with _rich(sys.stderr).status(_plain(text)) as status:
            yield lambda done, total, doing: status.update(
                f"{_plain(text)} {done}/{total} [dim]{_plain(doing)[:80]}[/dim]"
            )
        return
    step(text)
    last = time.monotonic()

    def print_occasionally(done: int, total: int, doing: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            step(f"{text} {done}/{total}")

    yield print_occasionally


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
