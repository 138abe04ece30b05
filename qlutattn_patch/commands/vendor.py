"""`qlutattn vendor`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.workspace import Workspace


@click.command(
    cls=Command,
    examples=[
        ("qlutattn vendor", "From the cache or the network:"),
        ("qlutattn vendor --from ~/llama.cpp.tar.gz", "Without a network, from an archive, a folder or a checkout:"),
    ],
)
@click.option(
    "--from",
    "given",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="A git checkout, folder or tar archive with the pinned llama.cpp.",
)
@json_option
def command(given: Path | None, as_json: bool) -> None:
    """Get the pinned llama.cpp into vendor/llama.cpp, and verify its files."""
    from qlutattn_patch.commands.documents import VendorDocument
    from qlutattn_patch.tree.vendor import vendor
    from qlutattn_patch.upstream.pin import Pinned, load_pin

    workspace = Workspace.find()
    changed = vendor(workspace, given)
    console.step(f"{workspace.tree} {'is now' if changed else 'is'} the pinned llama.cpp.")
    if as_json:
        pin = load_pin(workspace.pin_file)
        document(True, VendorDocument(str(workspace.tree), changed, Pinned(pin.commit, pin.tree)))
