"""The one place that writes: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

_err = Console(stderr=True, highlight=False, soft_wrap=True)
_SECONDS_BETWEEN_LINES = 10.0


def step(text: str) -> None:
    """Say on stderr what is being done now."""
    _err.print(f"[bold]·[/bold] {_plain(text)}")


def warn(text: str) -> None:
    """Say on stderr what the user should know, without stopping."""
    _err.print(f"[yellow]warning:[/yellow] {_plain(text)}")


def error(cause: str, hint: str | None = None) -> None:
    """Say on stderr why the command stops, and what to type next."""
    _err.print(f"[red]error:[/red] {_plain(cause)}")
    if hint:
        _err.print(f"  next: {_plain(hint)}")


def out(text: str) -> None:
    """Print a result line to stdout."""
    sys.stdout.write(text + "\n")


def out_json(value: Any) -> None:
    """Print a result for machines to stdout: one JSON document and nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def out_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table to stdout; the columns named in `right` are right-aligned."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    width = None if sys.stdout.isatty() else 200
    Console(file=sys.stdout, highlight=False, width=width).print(table)


@contextmanager
def spinner(text: str) -> Iterator[None]:
    """Show on stderr that something long is going on; a plain line when stderr is no terminal."""
    if _err.is_terminal:
        with _err.status(_plain(text)):
            yield
    else:
        step(text)
        yield


@contextmanager
def progress(text: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show on stderr how far a long task is: call the yielded function with (done, total, what is being done).

    A terminal gets one line that changes; anything else gets a line now and then.
    """
    if _err.is_terminal:
        with _err.status(_plain(text)) as status:
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
    """Pass on to stderr, as it is, what another program said."""
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
