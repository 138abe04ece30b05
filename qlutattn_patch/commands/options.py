"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch.presets import PRESETS

tree_option = click.option(
    "--tree",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Your own git checkout of llama.cpp, in place of vendor/llama.cpp.",
)
preset_option = click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="native",
    show_default=True,
    help="Which way to build.",
)
jobs_option = click.option(
    "-j", "--jobs", type=click.IntRange(min=1), help="How many compilers at once (default: one per core)."
)
quick_option = click.option("--quick", is_flag=True, help="Leave out align_attn's large cases.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/json.md).")
plot_option = click.option("--plot", metavar="FILE.svg|png", type=click.Path(path_type=Path), help="Draw it, too.")
