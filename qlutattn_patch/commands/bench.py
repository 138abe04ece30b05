"""`qlutattn bench`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch.commands import complete
from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option, plot_option, preset_option, tree_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.workspace import Workspace


@click.command(
    cls=Command,
    examples=[
        ("qlutattn bench --quick", "A first look:"),
        ("qlutattn bench --work decode --keys 8192,32768 --types f16,K4V4,K2V2", "Decoding, compared with f16:"),
        (
            "qlutattn bench --work decode --threads 1 --plot build/decode.svg",
            "All lengths, with a plot:",
        ),
    ],
)
@preset_option
@click.option("--work", metavar="LIST", help="Some of decode, prefill and pack (default: all).")
@click.option("--keys", metavar="LIST", help="Numbers of keys (default: 512 to 131072, prefill to 8192).")
@click.option("--threads", metavar="LIST", help="Numbers of threads (default: 1 and all).")
@click.option("--heads", metavar="Q/KV/D", help="Query heads, key/value heads, head size (default: 32/8/128).")
@click.option(
    "--layout",
    type=click.Choice(["heads", "tokens"]),
    help="Memory layout of f16, q8_0 and q4_0: contiguous per head (default), or per token, as in llama.cpp.",
)
@click.option(
    "--types",
    metavar="LIST",
    shell_complete=complete.list_of(complete.bench_caches),
    help="Caches such as f16, q8_0, q4_0, K4V2, K4V4+w512, w512.",
)
@click.option("--filter", metavar="REGEX", help="Run only the rows whose id matches, such as decode-8192-t2-K4V4.")
@click.option("--cold", is_flag=True, help="Flush the CPU caches before each run (default: warm caches).")
@click.option("--quick", is_flag=True, help="Run a few short rows only.")
@click.option(
    "--instructions", is_flag=True, help="Also count instructions with callgrind, on one thread (default: 512 keys)."
)
@plot_option
@json_option
@tree_option
def command(
    preset: str, instructions: bool, plot: Path | None, as_json: bool, tree: Path | None, **choice: str | bool | None
) -> None:
    """Time attention over packed keys and values, interleaved with upstream's f16, q8_0 and q4_0."""
    from qlutattn_patch.measure import plots
    from qlutattn_patch.measure.bench import RIGHT, Settings, bench

    if plot:
        plots.check(plot)
    result = bench(Workspace.find(tree), preset, Settings(**choice), instructions)  # type: ignore[arg-type]
    if plot:
        plots.plot_bench(result, plot)
    if as_json:
        document(True, result)
        return
    console.out_table(result.columns, result.table(), right=RIGHT)
    for line in result.summary():
        console.out(line)
