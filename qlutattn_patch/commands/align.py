"""`qlutattn align`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option, preset_option, quick_option, tree_option
from qlutattn_patch.commands.output import end_with
from qlutattn_patch.system.files import check_place, write
from qlutattn_patch.workspace import Workspace


@click.command(
    cls=Command,
    examples=[
        ("qlutattn align --quick", "A quick check, in about a minute:"),
        ("qlutattn align --filter k4v2", "Only the cases of one pair of types:"),
        ("qlutattn align --quick --json --junit build/align.xml", "As JSON, and as JUnit XML:"),
    ],
)
@preset_option
@click.option("--filter", metavar="REGEX", help="Run only the cases whose id matches.")
@click.option("--junit", "junit_file", metavar="FILE", type=click.Path(path_type=Path), help="Also write JUnit XML.")
@quick_option
@json_option
@tree_option
def command(
    preset: str, filter: str | None, junit_file: Path | None, quick: bool, as_json: bool, tree: Path | None
) -> None:
    """Run the built align_attn, and check the tiles and results that it dumps in numpy."""
    from qlutattn_patch.proof.align import align
    from qlutattn_patch.proof.junit import junit

    if junit_file:
        check_place(junit_file, "--junit")
    report = align(Workspace.find(tree), preset, filter, quick)
    if junit_file:
        write(junit_file, junit(report))
    end_with(report, as_json)
