"""`qlutattn bisect`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch import console, matrix, upstreams
from qlutattn_patch.bisect import bisect, candidates
from qlutattn_patch.commands.options import json_option
from qlutattn_patch.commands.upstream_options import clone_option, jobs_option, until_option
from qlutattn_patch.config import load_pin
from qlutattn_patch.workspace import Workspace, cache_dir


@click.command()
@click.argument("good")
@click.argument("bad")
@clone_option
@until_option
@jobs_option
@json_option
def command(good: str, bad: str, clone: Path | None, until: str, jobs: int | None, as_json: bool) -> None:
    """Find the first llama.cpp from GOOD to BAD on which a stage of the matrix fails.

    Both are releases, or commits of a clone.
    """
    workspace, cache = Workspace.find(), cache_dir()
    pin = load_pin(workspace.pin_file)
    names = candidates(pin, good, bad, clone)
    console.step(f"{len(names)} llama.cpps from {good} to {bad}.")
    checker = matrix.Checker(workspace.root, cache, jobs=jobs, until=until)
    found = bisect(checker, names, lambda name: upstreams.named(pin, name, clone, cache))
    if as_json:
        rows = {"tried": [row.json for row in found.tried]}
        ends = {"first_bad": found.first_bad.version, "last_good": found.last_good.version}
        console.out_json(
            {"schema": 1, **ends, "stage": found.first_bad.stage, "detail": found.first_bad.detail, **rows}
        )
        return
    console.out_table(matrix.columns(found.tried), matrix.table(found.tried))
    console.out(f"first bad: {found.first_bad.version} (last good: {found.last_good.version})")
    for line in matrix.details([found.first_bad]):
        console.out(line)
