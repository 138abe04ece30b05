"""`qlutattn install`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import definitions_option, jobs_option, json_option, preset_option, tree_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.workspace import Workspace


@click.command(
    cls=Command,
    examples=[
        ("qlutattn install ~/.local", "All tools, libraries, headers and CMake packages:"),
        ("qlutattn install --libraries /opt/llama", "What programs on the C API need:"),
        (
            "qlutattn install -D LLAMA_USE_PREBUILT_UI=ON ~/.local",
            "With llama-server's chat page, which is downloaded:",
        ),
    ],
)
@click.argument("prefix", type=click.Path(path_type=Path, file_okay=False))
@click.option("--libraries", is_flag=True, help="Only libraries, headers and CMake packages; built in a minute or two.")
@preset_option
@definitions_option
@jobs_option
@json_option
@tree_option
def command(
    prefix: Path,
    libraries: bool,
    preset: str,
    definitions: dict[str, str],
    jobs: int | None,
    as_json: bool,
    tree: Path | None,
) -> None:
    """Build the patched tools and libraries, and put them into PREFIX/bin, PREFIX/lib and PREFIX/include."""
    from qlutattn_patch.building.prefix import install
    from qlutattn_patch.commands.documents import InstallDocument

    prefix = prefix.expanduser().absolute()
    files = install(Workspace.find(tree), prefix, preset, libraries, definitions, jobs)
    if as_json:
        document(True, InstallDocument(prefix=str(prefix), files=files))
        return
    for name in ("bin", "lib", "include"):
        count = sum(Path(file).is_relative_to(prefix / name) for file in files)
        if count:
            console.out(f"{prefix / name}: {count} files")
