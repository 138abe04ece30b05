"""Output of commands: the envelope of JSON documents, and the report of align."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from qlutattn_patch.system import console
from qlutattn_patch.system.errors import CheckFailed

if TYPE_CHECKING:
    from qlutattn_patch.proof.align import Report
    from qlutattn_patch.system.records import Versioned


def document(ok: bool, record: Versioned) -> None:
    """Print a command's JSON document: `schema`, `command` and `ok` first, as in all documents."""
    from qlutattn_patch.system.records import plain

    name = click.get_current_context().info_name
    console.out_json({"schema": 1, "command": name, "ok": ok} | plain(record))


def end_with(report: Report, as_json: bool) -> None:
    """Print align's report and end the command: exit code 1 if a case failed."""
    from qlutattn_patch.proof.align import COLUMNS, RIGHT

    if as_json:
        document(report.ok, report.document)
    else:
        if report.cases:
            console.out_table(COLUMNS, report.table(), right=RIGHT)
        for line in [*report.failures(), report.verdict()]:
            word, space, more = line.partition(" ")
            console.out(console.state(word) + space + more)
    if not report.ok:
        raise CheckFailed
