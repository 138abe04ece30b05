"""`qlutattn apply`."""

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
        ("qlutattn apply", "Patch vendor/llama.cpp:"),
        ("qlutattn apply --tree ../llama.cpp", "Patch your own checkout, without changing its HEAD or index:"),
    ],
)
@json_option
@tree_option
def command(as_json: bool, tree: Path | None) -> None:
    """Apply the patch set to the tree, atomically; a second run changes nothing."""
    from qlutattn_patch.commands.documents import ApplyDocument
    from qlutattn_patch.patches.series import load_series
    from qlutattn_patch.tree.worktree import apply

    workspace = Workspace.find(tree)
    series = load_series(workspace.patches)
    changed = apply(workspace, series)
    console.step(f"{workspace.tree} {'now has' if changed else 'has'} the {len(series.patches)} patches.")
    if as_json:
        names = [patch.title for patch in series.patches]
        document(True, ApplyDocument(str(workspace.tree), changed, series.digest, names))
