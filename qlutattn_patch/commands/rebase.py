"""`qlutattn rebase`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch.commands import complete
from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import jobs_option, json_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.workspace import Workspace, cache_dir


@click.command(
    cls=Command,
    examples=[
        ("qlutattn rebase 0.3.36", "Move to a release:"),
        ("qlutattn rebase 0.3.36 --clone ~/llama.cpp", "The same, with the full commit id in the pin:"),
    ],
)
@click.argument("version", shell_complete=complete.one_of(complete.releases))
@click.option(
    "--clone",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A git clone of llama.cpp that has the release's commit.",
)
@jobs_option
@json_option
def command(version: str, clone: Path | None, jobs: int | None, as_json: bool) -> None:
    """Move the pin to another release if the templates pass every stage on it; otherwise change nothing.

    Pin, patches and generated docs change in one step; then the tree is vendored and patched again.
    """
    from qlutattn_patch.workflow.documents import RebaseDocument
    from qlutattn_patch.workflow.rebase import rebase

    rebased = rebase(Workspace.find_clone("rebase"), version, cache_dir(), jobs, clone)
    if as_json:
        document(True, RebaseDocument(version, rebased.row.commit, rebased.changed, rebased.row))
    else:
        for path in rebased.changed:
            console.out(f"changed  {path}")
    cases = f", {rebased.row.cases} cases of align_attn" if rebased.row.cases else ""
    console.step(f"The project is now at {version} (llama.cpp {rebased.row.commit}{cases}).")
