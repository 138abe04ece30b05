"""`qlutattn revert`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch import console
from qlutattn_patch.commands.options import tree_option
from qlutattn_patch.tree import revert
from qlutattn_patch.workspace import Workspace


@click.command()
@tree_option
def command(tree: Path | None) -> None:
    """Take the patch set out of the tree again: the files are those of its base commit."""
    workspace = Workspace.find(tree)
    changed = revert(workspace)
    console.step(f"{workspace.tree} {'is pristine again' if changed else 'had no patches applied'}.")
