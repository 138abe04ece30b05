"""`qlutattn eval`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch.commands import complete
from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option, plot_option, preset_option, tree_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.measure.caches import JUDGED
from qlutattn_patch.system import console
from qlutattn_patch.workspace import Workspace

_COUNT = click.IntRange(min=1)


@click.command(
    cls=Command,
    examples=[
        ("qlutattn eval --model M.gguf --text T.txt", "The default caches:"),
        (
            "qlutattn eval --model M.gguf --text T.txt --types q4_0,K4V4+w512+s128,K4 --chunks 8",
            "Chosen caches, one with its own window and sink, on the first 8 chunks:",
        ),
    ],
)
@click.option("--model", metavar="M.gguf", type=click.Path(path_type=Path), required=True, help="The model.")
@click.option("--text", metavar="T.txt", type=click.Path(path_type=Path), required=True, help="The text to evaluate.")
@click.option(
    "--ctx",
    "n_ctx",
    metavar="N",
    type=click.IntRange(min=8),
    default=1024,
    show_default=True,
    help="Context length in tokens.",
)
@click.option(
    "--types",
    metavar="LIST",
    default=JUDGED,
    shell_complete=complete.list_of(complete.caches),
    help=f"Caches such as q8_0, K4V2, K4 (keys alone), K4V4+w512 (default: {JUDGED}).",
)
@click.option("--kv-window", "window", metavar="N", type=click.IntRange(min=0), help="Newest tokens kept in f16.")
@click.option("--kv-sink", "sink", metavar="N", type=click.IntRange(min=0), help="First tokens kept in f16.")
@click.option("--chunks", metavar="N", type=_COUNT, help="Evaluate at most N contexts of the text.")
@click.option("--threads", metavar="N", type=_COUNT, help="Number of threads (default: llama.cpp's).")
@preset_option
@plot_option
@json_option
@tree_option
def command(preset: str, plot: Path | None, as_json: bool, tree: Path | None, **choice: object) -> None:
    """Evaluate caches on a model: perplexity, and KL divergence from an f16 cache (with llama-perplexity)."""
    from qlutattn_patch.measure import plots
    from qlutattn_patch.measure.evaluate import COLUMNS, RIGHT, Settings, evaluate

    if plot:
        plots.check(plot)
    result = evaluate(Workspace.find(tree), preset, Settings(**choice))  # type: ignore[arg-type]
    if plot:
        plots.plot_evaluation(result, plot)
    if as_json:
        document(True, result)
        return
    console.out_table(COLUMNS, result.table(), right=RIGHT)
    for line in result.summary():
        console.out(line)
