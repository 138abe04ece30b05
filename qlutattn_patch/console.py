"""The one place that writes: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

_err = Console(stderr=True, highlight=False, soft_wrap=True)


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


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
