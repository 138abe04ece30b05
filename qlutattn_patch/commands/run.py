"""`qlutattn run`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch import pipeline
from qlutattn_patch.commands.options import json_option, quick_option, tree_option
from qlutattn_patch.commands.output import end_with
from qlutattn_patch.presets import PRESETS
from qlutattn_patch.workspace import Workspace


@click.command()
@click.option("--preset", type=click.Choice(list(PRESETS)), default="native", show_default=True, help="How to build.")
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="How many compilers at once (default: one per core).")
@quick_option
@json_option
@tree_option
def command(preset: str, jobs: int | None, quick: bool, as_json: bool, tree: Path | None) -> None:
    """Do it all: get llama.cpp, patch it, build it, and prove it with align_attn."""
    end_with(pipeline.run(Workspace.find(tree), preset, jobs, quick), as_json)
