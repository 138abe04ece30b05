"""`qlutattn build`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch.building.presets import DEFAULT_TARGET, PRESETS
from qlutattn_patch.commands import complete
from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import definitions_option, jobs_option, json_option, preset_option, tree_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.workspace import Workspace


@click.command(
    cls=Command,
    examples=[
        ("qlutattn build", "align_attn for this machine:"),
        ("qlutattn build --target llama-server --target llama-cli", "Two of llama.cpp's tools:"),
        ("qlutattn build --target llama-server -D GGML_BLAS=ON", "With an option of cmake's, which stays:"),
        ("qlutattn build --preset asan --jobs 2", "With sanitizers, two compile jobs:"),
    ],
    epilog="\b\nPresets:\n" + "\n".join(f"  {preset.name:8}{preset.summary}" for preset in PRESETS.values()),
)
@preset_option
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=[DEFAULT_TARGET],
    show_default=True,
    shell_complete=complete.one_of(complete.targets),
    help="Target to build; repeatable.",
)
@click.option(
    "--type",
    "build_type",
    type=click.Choice(["Release", "RelWithDebInfo", "Debug", "MinSizeRel"]),
    help="CMake's build type.",
)
@definitions_option
@jobs_option
@json_option
@tree_option
def command(
    preset: str,
    targets: tuple[str, ...],
    build_type: str | None,
    definitions: dict[str, str],
    jobs: int | None,
    as_json: bool,
    tree: Path | None,
) -> None:
    """Build the patched tree with cmake and ninja, in a build folder per preset."""
    from qlutattn_patch.building import cmake
    from qlutattn_patch.commands.documents import BuildDocument

    built = cmake.build(Workspace.find(tree), preset, targets, build_type, jobs, definitions=definitions)
    if as_json:
        document(True, BuildDocument(preset, targets, str(built.path), str(built.bin)))
    else:
        console.out(str(built.bin))
