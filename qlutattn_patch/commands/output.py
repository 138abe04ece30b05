"""How commands that end in the same thing print it."""

from __future__ import annotations

from qlutattn_patch import console
from qlutattn_patch.align import COLUMNS, RIGHT, Report
from qlutattn_patch.errors import CheckFailed


def end_with(report: Report, as_json: bool) -> None:
    """Print align's report, as the last thing that a command does: exit code 1 if a case failed."""
    if as_json:
        console.out_json(report.json)
    else:
        console.out_table(COLUMNS, report.table(), right=RIGHT)
        for line in report.failures():
            console.out(line)
        console.out(report.verdict())
    if not report.ok:
        raise CheckFailed
