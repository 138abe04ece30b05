"""`qlutattn matrix`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qlutattn_patch.commands import complete
from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import clone_option, jobs_option, json_option, preset_option, until_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.system.errors import CheckFailed
from qlutattn_patch.workspace import Workspace, cache_dir

if TYPE_CHECKING:
    from qlutattn_patch.upstream.releases import Upstream
    from qlutattn_patch.workflow.documents import Until

_RELEASES = 8


def _shard(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    part, _, count = value.partition("/")
    if not (part.isdecimal() and count.isdecimal() and 1 <= int(part) <= int(count)):
        raise click.BadParameter(f"'{value}' is not a shard such as 2/4 (the second of four).", ctx, param)
    return int(part), int(count)


@click.command(
    cls=Command,
    examples=[
        ("qlutattn matrix", "The last eight releases, through all stages:"),
        ("qlutattn matrix --until applied 0.3.36", "One release, without a compiler:"),
        ("qlutattn matrix --clone ~/llama.cpp master HEAD~20", "Two commits of a clone:"),
        ("qlutattn matrix --shard 2/4 --json", "The second quarter of them, as JSON:"),
    ],
)
@click.argument("names", metavar="[VERSION|COMMIT]...", nargs=-1, shell_complete=complete.one_of(complete.releases))
@click.option(
    "--tree",
    "trees",
    metavar="DIR",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A checkout of llama.cpp, tested at its HEAD; repeatable.",
)
@clone_option
@until_option
@preset_option
@jobs_option
@click.option("--shard", metavar="I/N", callback=_shard, help="Only every N-th upstream, starting with the I-th.")
@json_option
def command(
    names: tuple[str, ...],
    trees: tuple[Path, ...],
    clone: Path | None,
    until: Until,
    preset: str,
    jobs: int | None,
    shard: tuple[int, int] | None,
    as_json: bool,
) -> None:
    """Test the templates on several llama.cpp versions: find the anchors, generate, apply, compile, align.

    The default is the last eight releases of the package that the pin names. Each gets its own work tree in the
    cache; this project and checkouts do not change.
    """
    from qlutattn_patch.upstream import releases
    from qlutattn_patch.upstream.pin import load_pin
    from qlutattn_patch.workflow import matrix
    from qlutattn_patch.workflow.documents import MatrixDocument

    workspace, cache = Workspace.find(), cache_dir()
    pin = load_pin(workspace.pin_file)
    wanted = [*names, *(str(tree) for tree in trees)] or releases.latest(pin, _RELEASES)
    if shard:
        wanted = wanted[shard[0] - 1 :: shard[1]]
    checkouts = {str(tree): tree for tree in trees}

    def find(name: str) -> Upstream:
        if name in checkouts:
            return releases.head_of(checkouts[name], cache)
        return releases.named(pin, name, clone, cache)

    rows = matrix.run(matrix.Checker(workspace.root, cache, preset, jobs, until), wanted, find)
    failed = sum(not row.ok for row in rows)
    if as_json:
        document(not failed, MatrixDocument(until, rows))
    else:
        console.out_table(matrix.columns(rows), matrix.table(rows))
        for line in matrix.details(rows):
            console.out(line)
        console.out(
            f"{console.state('FAIL' if failed else 'PASS')}  {len(rows) - failed} of {len(rows)} upstreams: {until}"
        )
    if failed:
        raise CheckFailed
