"""`qlutattn status`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qlutattn_patch import console
from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option, tree_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.workspace import Workspace

if TYPE_CHECKING:
    from qlutattn_patch.status import Status

_NEXT = {
    "absent": "qlutattn vendor",
    "clean": "qlutattn apply",
    "stale": "qlutattn vendor && qlutattn generate && qlutattn apply",
    "dirty": "commit or stash your changes, or move them away",
}


@click.command(
    cls=Command,
    examples=[
        ("qlutattn status", "The state of vendor/llama.cpp, and what to type next:"),
        ("qlutattn status --tree ../llama.cpp", "The same for a checkout of your own:"),
        ("qlutattn status --json", "For machines:"),
    ],
)
@json_option
@tree_option
def command(as_json: bool, tree: Path | None) -> None:
    """Say what state the tree is in, and which link is stale and why."""
    from qlutattn_patch.status import read_status

    workspace = Workspace.find(tree)
    status = read_status(workspace)
    if as_json:
        document(True, _record(status))
        return
    console.out(f"{workspace.tree}: {status.state}")
    console.out(f"pin: llama.cpp {status.pin.commit}")
    for item in status.stale:
        console.out(f"stale: {item.link}: {item.why}")
    for path in status.foreign:
        console.out(f"yours: {path}")
    if status.series is not None:
        rows = [(patch.title, str(len(patch.files)), str(patch.upstream_lines)) for patch in status.series.patches]
        console.out_table(("patch", "files", "upstream lines"), rows, right=("files", "upstream lines"))
    if status.state in _NEXT:
        console.out(f"next: {_NEXT[status.state]}")


def _record(status: Status) -> dict[str, object]:
    patches = status.series.patches if status.series else ()
    return {
        "pin": {"commit": status.pin.commit, "tree": status.pin.tree},
        "state": status.state,
        "stale": [asdict(item) for item in status.stale],
        "series": status.series.digest if status.series else None,
        "yours": list(status.foreign),
        "patches": [
            {
                "name": patch.title,
                "files": [file.path for file in patch.files],
                "upstream_lines": patch.upstream_lines,
            }
            for patch in patches
        ],
    }
