"""`qlutattn types`."""

from __future__ import annotations

import click

from qlutattn_patch import console
from qlutattn_patch.commands.options import json_option
from qlutattn_patch.formats import QuantType, load_formats
from qlutattn_patch.workspace import Workspace

_COLUMNS = ("type", "id", "lanes", "bits", "tile bytes", "bits per value", "saves")


@click.command()
@json_option
def command(as_json: bool) -> None:
    """List the tensor types, with the bits per value and what each saves against f16."""
    types = load_formats(Workspace.find().templates / "formats.toml").types
    if as_json:
        console.out_json({"schema": 1, "types": [_record(found) for found in types]})
        return
    rows = [
        (t.name, str(t.id), t.lanes, str(t.bits), str(t.tile_bytes), f"{t.bpw:g}", f"{t.saving:.1%}") for t in types
    ]
    console.out_table(_COLUMNS, rows, right=("id", "bits", "tile bytes", "bits per value", "saves"))


def _record(found: QuantType) -> dict[str, object]:
    return {
        "name": found.name,
        "id": found.id,
        "bits": found.bits,
        "lanes": found.lanes,
        "tile_bytes": found.tile_bytes,
        "bpw": found.bpw,
        "saving": found.saving,
    }
