"""`qlutattn types`."""

from __future__ import annotations

import click

from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.workspace import Workspace

_COLUMNS = ("type", "id", "lanes", "bits", "tile bytes", "bits per value", "saves")


@click.command(
    cls=Command,
    examples=[
        ("qlutattn types", "The types, as a table:"),
        ("qlutattn types --json", "The same as JSON:"),
    ],
)
@json_option
def command(as_json: bool) -> None:
    """List the tensor types, with the bits per value and what each saves against f16."""
    import msgspec

    from qlutattn_patch.commands.documents import TypeEntry, TypesDocument
    from qlutattn_patch.templates.formats import load_formats

    types = load_formats(Workspace.find().templates / "formats.toml").types
    if as_json:
        document(True, TypesDocument(msgspec.convert(types, list[TypeEntry], from_attributes=True)))
        return
    rows = [
        (t.name, str(t.id), t.lanes, str(t.bits), str(t.tile_bytes), f"{t.bpw:g}", f"{t.saving:.1%}") for t in types
    ]
    console.out_table(_COLUMNS, rows, right=("id", "bits", "tile bytes", "bits per value", "saves"))
