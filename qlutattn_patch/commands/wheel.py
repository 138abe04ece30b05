"""`qlutattn wheel`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import definitions_option, jobs_option, json_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.workspace import Workspace


@click.command(
    cls=Command,
    examples=[
        ("qlutattn wheel", 'For this machine; prints the path, for pip install "$(qlutattn wheel)[server]":'),
        ("qlutattn wheel --out dist", "Copied into a folder:"),
        ("qlutattn wheel -D GGML_NATIVE=OFF -D GGML_AVX2=ON", "For other machines than this one:"),
    ],
)
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Copy the wheel into this folder.")
@definitions_option
@jobs_option
@json_option
def command(out: Path | None, definitions: dict[str, str], jobs: int | None, as_json: bool) -> None:
    """Build the patched llama-cpp-python of the pinned release as a wheel; it has llama_cpp.qlutattn."""
    import shutil

    from qlutattn_patch.building.binding import build_wheel
    from qlutattn_patch.commands.documents import WheelDocument

    made = build_wheel(Workspace.find(), definitions, jobs)
    path = made.path
    if out:
        out.mkdir(parents=True, exist_ok=True)
        path = Path(shutil.copy(path, out)).absolute()
    if made.cached:
        console.step("The wheel was built before, of the same sources and with the same options.")
    if as_json:
        document(True, WheelDocument(wheel=str(path), version=made.version, cached=made.cached))
    else:
        console.out(str(path))
