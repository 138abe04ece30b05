"""`qlutattn bisect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qlutattn_patch.commands import complete
from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import clone_option, jobs_option, json_option, until_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.workspace import Workspace, cache_dir

if TYPE_CHECKING:
    from qlutattn_patch.workflow.documents import Until


@click.command(
    cls=Command,
    examples=[
        ("qlutattn bisect 0.3.29 0.3.36 --until applied", "The first release to which the patches do not apply:"),
        ("qlutattn bisect --clone ~/llama.cpp v1 HEAD", "The commit of a clone that broke any stage:"),
    ],
)
@click.argument("good", shell_complete=complete.one_of(complete.releases))
@click.argument("bad", shell_complete=complete.one_of(complete.releases))
@clone_option
@until_option
@jobs_option
@json_option
def command(good: str, bad: str, clone: Path | None, until: Until, jobs: int | None, as_json: bool) -> None:
    """Find the first llama.cpp version from GOOD to BAD on which a stage of the matrix fails.

    GOOD and BAD are two releases, or two commits of a clone.
    """
    from qlutattn_patch.upstream import releases
    from qlutattn_patch.upstream.pin import load_pin
    from qlutattn_patch.workflow import matrix
    from qlutattn_patch.workflow.bisect import bisect, candidates
    from qlutattn_patch.workflow.documents import BisectDocument

    workspace, cache = Workspace.find(), cache_dir()
    pin = load_pin(workspace.pin_file)
    names = candidates(pin, good, bad, clone)
    console.step(f"{len(names)} versions of llama.cpp from {good} to {bad}.")
    checker = matrix.Checker(workspace.root, cache, jobs=jobs, until=until)
    found = bisect(checker, names, lambda name: releases.named(pin, name, clone, cache))
    if as_json:
        first = found.first_bad
        document(True, BisectDocument(first.version, found.last_good.version, first.stage, first.detail, found.tried))
        return
    console.out_table(matrix.columns(found.tried), matrix.table(found.tried))
    console.out(f"first bad: {found.first_bad.version} (last good: {found.last_good.version})")
    for line in matrix.details([found.first_bad]):
        console.out(line)
