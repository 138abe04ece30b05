"""`qlutattn apply`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch import console
from qlutattn_patch.commands.options import tree_option
from qlutattn_patch.series import load_series
from qlutattn_patch.tree import apply
from qlutattn_patch.workspace import Workspace


@click.command()
@tree_option
def command(tree: Path | None) -> None:
    """Put the patch set into the tree: wholly or not at all, and again without harm."""
    workspace = Workspace.find(tree)
    series = load_series(workspace.patches)
    changed = apply(workspace, series)
    console.step(f"{workspace.tree} {'now has' if changed else 'has'} the {len(series.patches)} patches.")
