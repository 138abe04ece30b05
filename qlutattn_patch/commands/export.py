"""`qlutattn export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option, tree_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.system.errors import CheckFailed
from qlutattn_patch.workspace import Workspace

if TYPE_CHECKING:
    from qlutattn_patch.export.mapping import Carried


@click.command(
    cls=Command,
    examples=[
        ("qlutattn export --dry-run", "Show where each edit of vendor/llama.cpp would go:"),
        ("qlutattn export", "Export the edits, and generate patches/ again:"),
        ("qlutattn export --tree ../llama.cpp", "The same for a checkout of your own:"),
    ],
)
@click.option("--dry-run", is_flag=True, help="Print where each edit would go, and write nothing.")
@json_option
@tree_option
def command(dry_run: bool, as_json: bool, tree: Path | None) -> None:
    """Export edits of the patched tree to templates/, all of them or none.

    New files go to the overlay, edits of upstream's files to the hooks that contain them. Patches and generated docs
    are generated again, and the tree counts as patched with them.
    """
    from qlutattn_patch.export.export import export
    from qlutattn_patch.system.process import shown

    workspace = Workspace.find_clone("export", tree)
    exported = export(workspace, dry_run)
    for warning in exported.warnings:
        console.warn(warning)
    if as_json:
        document(not exported.refused, exported)
    else:
        for item in exported.carried:
            console.out(f"carried  {_line(item)}")
        for path in exported.changed:
            console.out(f"changed  {path}")
    if exported.refused:
        console.show([line for refused in exported.refused for line in refused.lines])
        count = "1 edit" if len(exported.refused) == 1 else f"{len(exported.refused)} edits"
        console.error(
            f"{count} of {workspace.tree} cannot be exported, see above; nothing was changed.",
            f"follow the hint of each, then: {shown(['qlutattn', 'export', *workspace.options])}",
        )
        raise CheckFailed
    done = "would match the tree" if dry_run else "match the tree"
    console.step(f"templates/ and patches/ {done}." if exported.changed else "There is nothing to export.")


def _line(item: Carried) -> str:
    where = "" if item.hook is None else f" [[hook]] {item.hook}" + (f" [[or]] {item.form}" if item.form else "")
    return f"{item.file} -> {item.to}{where}"
