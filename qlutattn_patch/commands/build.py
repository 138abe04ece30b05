"""`qlutattn build`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch import cmake, console
from qlutattn_patch.commands.options import tree_option
from qlutattn_patch.presets import PRESETS
from qlutattn_patch.workspace import Workspace


@click.command(
    epilog="\b\nPresets:\n" + "\n".join(f"  {preset.name:8}{preset.summary}" for preset in PRESETS.values()),
)
@click.option("--preset", type=click.Choice(list(PRESETS)), default="native", show_default=True, help="How to build.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=[cmake.DEFAULT_TARGET],
    show_default=True,
    help="What to build; repeatable.",
)
@click.option(
    "--type",
    "build_type",
    type=click.Choice(["Release", "RelWithDebInfo", "Debug", "MinSizeRel"]),
    help="CMake's build type.",
)
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="How many compilers at once (default: one per core).")
@tree_option
def command(preset: str, targets: tuple[str, ...], build_type: str | None, jobs: int | None, tree: Path | None) -> None:
    """Build the patched tree with cmake and ninja, in a build folder per preset."""
    built = cmake.build(Workspace.find(tree), preset, targets, build_type, jobs)
    console.out(str(built.bin))
