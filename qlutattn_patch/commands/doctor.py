"""`qlutattn doctor`."""

from __future__ import annotations

import click

from qlutattn_patch import console, doctor
from qlutattn_patch.commands.options import json_option
from qlutattn_patch.doctor import Finding
from qlutattn_patch.errors import CheckFailed
from qlutattn_patch.workspace import Workspace


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Say what this machine has, what it lacks and what for, and the one line that installs it."""
    report = doctor.examine(Workspace.find().root)
    if as_json:
        console.out_json(doctor.as_json(report))
    else:
        console.out_table(
            ["", "what", "version", "where", "needed for"], [_row(finding) for finding in report.findings]
        )
        console.out(f"CPU: {report.machine} {' '.join(report.isa)}")
        if report.install:
            console.out(f"To install what is missing: {report.install}")
    if not report.ok:
        lacking = ", ".join(finding.name for finding in report.missing if finding.required)
        raise CheckFailed(f"`qlutattn run` can not work here without: {lacking}.")


def _row(finding: Finding) -> list[str]:
    mark = "ok" if finding.ok else "MISSING" if finding.required else "absent"
    return [mark, finding.name, finding.version, finding.path, finding.needed_for]
