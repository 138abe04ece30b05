"""`qlutattn eval`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch import console, evaluate_plot, picture
from qlutattn_patch.commands.options import json_option, plot_option, tree_option
from qlutattn_patch.evaluate import COLUMNS, RIGHT, TYPES, Settings, evaluate
from qlutattn_patch.presets import PRESETS
from qlutattn_patch.workspace import Workspace

_COUNT = click.IntRange(min=1)


@click.command()
@click.option("--model", metavar="M.gguf", type=click.Path(path_type=Path), required=True, help="The model.")
@click.option("--text", metavar="T.txt", type=click.Path(path_type=Path), required=True, help="What it reads.")
@click.option(
    "--ctx", "n_ctx", metavar="N", type=click.IntRange(min=8), default=1024, show_default=True, help="Tokens."
)
@click.option(
    "--types",
    metavar="LIST",
    default=TYPES,
    help=f"Of f16, q8_0 and its like, K4V2, K4 (keys alone), V4, K4V4+w512+s128 (default: {TYPES}).",
)
@click.option("--kv-window", "window", metavar="N", type=click.IntRange(min=0), help="Newest tokens that stay f16.")
@click.option("--kv-sink", "sink", metavar="N", type=click.IntRange(min=0), help="First tokens that stay f16.")
@click.option("--chunks", metavar="N", type=_COUNT, help="Read no more than N contexts of the text.")
@click.option("--threads", metavar="N", type=_COUNT, help="How many threads (default: as llama.cpp chooses).")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="native", show_default=True, help="Which build.")
@plot_option
@json_option
@tree_option
def command(preset: str, plot: Path | None, as_json: bool, tree: Path | None, **choice: object) -> None:
    """Judge caches by a model's answers: perplexity, and divergence from an f16 cache (llama-perplexity's protocol)."""
    if plot:
        picture.check(plot)
    result = evaluate(Workspace.find(tree), preset, Settings(**choice))  # type: ignore[arg-type]
    if plot:
        evaluate_plot.plot(result, plot)
    if as_json:
        console.out_json(result.json)
        return
    console.out_table(COLUMNS, result.table(), right=RIGHT)
    for line in result.summary():
        console.out(line)
