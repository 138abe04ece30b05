"""`qlutattn run`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import jobs_option, json_option, preset_option, quick_option, tree_option
from qlutattn_patch.commands.output import end_with
from qlutattn_patch.workspace import Workspace


@click.command(
    cls=Command,
    examples=[
        ("qlutattn run", "Every step, for this machine:"),
        ("qlutattn run --preset arm64 --quick", "For arm64, without the large cases:"),
    ],
)
@preset_option
@jobs_option
@quick_option
@json_option
@tree_option
def command(preset: str, jobs: int | None, quick: bool, as_json: bool, tree: Path | None) -> None:
    """Get llama.cpp, patch it, build it, and check it with align_attn."""
    from qlutattn_patch.workflow import run_all

    end_with(run_all.run(Workspace.find(tree), preset, jobs, quick), as_json)
