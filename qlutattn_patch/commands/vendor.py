"""`qlutattn vendor`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch import console
from qlutattn_patch.vendor import vendor
from qlutattn_patch.workspace import Workspace


@click.command()
@click.option(
    "--from",
    "given",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="A git checkout, a folder or a tar archive that has the pinned llama.cpp.",
)
def command(given: Path | None) -> None:
    """Get the pinned llama.cpp into vendor/llama.cpp, verified to the last byte."""
    workspace = Workspace.find()
    changed = vendor(workspace, given)
    console.step(f"{workspace.tree} {'is now' if changed else 'is'} the pinned llama.cpp.")
