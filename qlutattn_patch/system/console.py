"""The one place that writes: results to stdout, everything else to stderr."""

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

if TYPE_CHECKING:  # rich takes long to load, and most of what is printed needs no more than a line
    from rich.console import Console

COLORS = ("auto", "always", "never")
_SECONDS_BETWEEN_LINES = 10.0
_STYLES = {"bold": "1", "dim": "2", "red": "31", "yellow": "33"}


@dataclass
class _Settings:
    """What the options that every command has ask for."""

    quiet: bool = False
    verbose: bool = False
    color: str = "auto"


_settings = _Settings()


def configure(quiet: bool = False, verbose: bool = False, color: str = "auto") -> None:
    """Set how much is said, and whether in colours; without arguments as at the start."""
    global _settings
    _settings = _Settings(quiet, verbose, color)


def be_quiet() -> None:
    """Say nothing on stderr but errors, and what belongs to them."""
    _settings.quiet, _settings.verbose = True, False


def be_verbose() -> None:
    """Say on stderr which programs are run."""
    _settings.verbose, _settings.quiet = True, False


def set_color(when: str) -> None:
    """Use colours always, never, or (auto) where there is a terminal and the environment does not say otherwise."""
    _settings.color = when


def is_quiet() -> bool:
    """Whether nothing but errors is to be said on stderr."""
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
    """Say on stderr what is being done now."""
    if not _settings.quiet:
        _say(f"{_styled('·', 'bold')} {text}")


def warn(text: str) -> None:
    """Say on stderr what the user should know, without stopping."""
    if not _settings.quiet:
        _say(f"{_styled('warning:', 'yellow')} {text}")


def error(cause: str, hint: str | None = None) -> None:
    """Say on stderr why the command stops, and what to type next."""
    _say(f"{_styled('error:', 'red')} {cause}")
    if hint:
        _say(f"  next: {hint}")


def ran(argv: Sequence[str | Path], cwd: Path | None = None) -> None:
    """Say on stderr, if that is asked for, which program is run, as a person would type it."""
    if _settings.verbose:
        there = f"cd {shlex.quote(str(cwd))} && " if cwd else ""
        _say(_styled(f"$ {there}{shlex.join(str(arg) for arg in argv)}", "dim"))


def out(text: str) -> None:
    """Print a result line to stdout."""
    sys.stdout.write(text + "\n")


def out_json(value: Any) -> None:
    """Print a JSON document to stdout, and nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


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
    sys.stdout.write(captured.get())  # by rich itself, a reader who has enough would be an exit code of 1


@contextmanager
def spinner(text: str) -> Iterator[None]:
    """Show on stderr that something long is going on; a plain line when stderr is no terminal."""
    if _is_live():
        with _rich(sys.stderr).status(_plain(text)):
            yield
    else:
        step(text)
        yield


@contextmanager
def progress(text: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show on stderr how far a long task is: call the yielded function with (done, total, what is being done).

    A terminal gets one line that changes; anything else gets a line now and then.
    """
    if _is_live():
        with _rich(sys.stderr).status(_plain(text)) as status:
            yield lambda done, total, doing: status.update(
                f"{_plain(text)} {done}/{total} [dim]{_plain(doing)[:80]}[/dim]"
            )
        return
    step(text)
    said = time.monotonic()

    def now_and_then(done: int, total: int, doing: str) -> None:
        nonlocal said
        if time.monotonic() - said >= _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            step(f"{text} {done}/{total}")

    yield now_and_then


def show(lines: Sequence[str]) -> None:
    """Pass on to stderr, as it is, what another program said when it failed."""
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _styled(text: str, style: str) -> str:
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if wants_color(sys.stderr) else text


def _is_live() -> bool:
    """Whether a line that changes can be shown, which lines of other programs would break."""
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
