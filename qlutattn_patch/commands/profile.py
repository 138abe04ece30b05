"""`qlutattn profile`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch.commands import complete
from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option, plot_option, tree_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.system.errors import CheckFailed
from qlutattn_patch.workspace import Workspace


@click.command(
    cls=Command,
    context_settings={"allow_interspersed_args": False},  # what follows the tool is the tool's
    examples=[
        ("qlutattn profile -- llama-bench -m M.gguf -p 0 -n 32", "Where the time of a token goes:"),
        (
            "qlutattn profile --plot build/token.svg -- llama-bench -m M.gguf -p 0 -n 32 -d 8192 -t 1",
            "After 8192 tokens, on one thread, with a plot:",
        ),
        ("qlutattn profile --trace trace.json -- bench_attn --quick", "Any other tool of the tree, its trace there:"),
    ],
)
@click.argument(
    "tool", nargs=-1, required=True, type=click.UNPROCESSED, shell_complete=complete.one_of(complete.targets)
)
@click.option(
    "--trace",
    metavar="FILE.json",
    type=click.Path(path_type=Path),
    help="Where to write the trace (default: in the build folder).",
)
@plot_option
@json_option
@tree_option
def command(tool: tuple[str, ...], trace: Path | None, plot: Path | None, as_json: bool, tree: Path | None) -> None:
    """Run a tool under the graph profiler: time per operation and per layer, and a trace for Perfetto."""
    from qlutattn_patch.measure import plot_style, plots
    from qlutattn_patch.measure.profile import COLUMNS, GROUPS, RIGHT, profile

    if plot:
        plot_style.check(plot)
    result = profile(Workspace.find(tree), tool, trace)
    if plot:
        plots.plot_profile(result, plot)
    if as_json:
        document(result.status == 0, result)
    else:
        for part, rows in (("operation", result.operations()), ("layer", result.layers())):
            console.out_table([name.format(part) for name in COLUMNS], rows, right=RIGHT, groups=GROUPS)
            console.out("")
        for line in result.summary():
            console.out(line)
    if result.status != 0:
        raise CheckFailed(f"{tool[0]} ended with exit status {result.status}.")
