"""`qlutattn report`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import tree_option
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
@tree_option
def command(output: Path, tree: Path | None) -> None:
    """Write one HTML page of the machine, the tree and its builds, with all stored results and what repeats them."""
    from qlutattn_patch.workflow.report import write

    write(Workspace.find(tree), output)
    console.out(str(output))
