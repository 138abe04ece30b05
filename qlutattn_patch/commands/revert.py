"""`qlutattn revert`."""

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
        ("qlutattn revert", "Make vendor/llama.cpp pristine again:"),
        ("qlutattn revert --tree ../llama.cpp", "The same for a checkout of your own:"),
    ],
)
@json_option
@tree_option
def command(as_json: bool, tree: Path | None) -> None:
    """Remove the patch set from the tree: restore the files of its base commit."""
    from qlutattn_patch.commands.documents import RevertDocument
    from qlutattn_patch.tree.worktree import revert

    workspace = Workspace.find(tree)
    changed = revert(workspace)
    console.step(f"{workspace.tree} {'is pristine again' if changed else 'had no patches applied'}.")
    if as_json:
        document(True, RevertDocument(str(workspace.tree), changed))
