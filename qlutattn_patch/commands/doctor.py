"""`qlutattn doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.system.errors import CheckFailed
from qlutattn_patch.workspace import Workspace

if TYPE_CHECKING:
    from qlutattn_patch.building.doctor import Finding


@click.command(
    cls=Command,
    examples=[
        ("qlutattn doctor", "Tools found and missing, and the command that installs the rest:"),
        ("qlutattn doctor --json", "The same as JSON:"),
    ],
)
@json_option
def command(as_json: bool) -> None:
    """Report which tools are found or missing, what they are needed for, and how to install them."""
    import msgspec

    from qlutattn_patch.building import doctor
    from qlutattn_patch.commands.documents import DoctorDocument

    report = doctor.examine(Workspace.find().home)
    if as_json:
        document(report.ok, msgspec.convert(report, DoctorDocument, from_attributes=True))
    else:
        console.out_table(
            ["", "what", "version", "where", "needed for"], [_row(finding) for finding in report.findings]
        )
        console.out(f"CPU: {report.machine} {' '.join(report.isa)}")
        if report.install:
            console.out(f"To install what is missing: {report.install}")
    if not report.ok:
        lacking = ", ".join(finding.name for finding in report.missing if finding.required)
        raise CheckFailed(f"`qlutattn run` cannot work here without: {lacking}.")


def _row(finding: Finding) -> list[str]:
    mark = "ok" if finding.ok else "MISSING" if finding.required else "absent"
    return [mark, finding.name, finding.version, finding.path, finding.needed_for]
