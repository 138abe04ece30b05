"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

tree_option = click.option(
    "--tree",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Your own git checkout of llama.cpp, in place of vendor/llama.cpp.",
)
quick_option = click.option("--quick", is_flag=True, help="Leave out align_attn's large cases.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
plot_option = click.option("--plot", metavar="FILE.svg|png", type=click.Path(path_type=Path), help="Draw it, too.")
