"""`qlutattn rebase`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch import console
from qlutattn_patch.commands.upstream_options import jobs_option
from qlutattn_patch.rebase import rebase
from qlutattn_patch.workspace import Workspace, cache_dir


@click.command()
@click.argument("version")
@click.option(
    "--clone",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A git clone of llama.cpp that knows the release's commit by its whole id.",
)
@jobs_option
def command(version: str, clone: Path | None, jobs: int | None) -> None:
    """Move the pin to another release if the templates pass every stage on it; otherwise change nothing.

    Pin, patches and generated docs change in one step; then the tree follows, patched.
    """
    rebased = rebase(Workspace.find(), version, cache_dir(), jobs, clone)
    for path in rebased.changed:
        console.out(f"changed  {path}")
    cases = f", {rebased.row.cases} cases of align_attn" if rebased.row.cases else ""
    console.step(f"The project is for {version} now (llama.cpp {rebased.row.commit}{cases}).")
