"""`qlutattn report`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option, tree_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.workspace import Workspace


@click.command(
    cls=Command,
    examples=[
        ("qlutattn report", "A page of all results so far:"),
        ("qlutattn report --output build/report.html", "The same in another place:"),
    ],
)
@click.option(
    "--output",
    metavar="FILE.html",
    type=click.Path(path_type=Path),
    default=Path("qlutattn-report.html"),
    show_default=True,
    help="The file to write.",
)
@json_option
@tree_option
def command(output: Path, as_json: bool, tree: Path | None) -> None:
    """Write one HTML page of the machine, the tree and its builds, with all stored results and what repeats them."""
    from qlutattn_patch.commands.documents import ReportDocument
    from qlutattn_patch.workflow.report import write

    write(Workspace.find(tree), output)
    if as_json:
        document(True, ReportDocument(str(output.absolute())))
    else:
        console.out(str(output))
