"""Options shared by several commands."""

from __future__ import annotations

import re
from pathlib import Path

import click

from qlutattn_patch.building.presets import PRESETS
from qlutattn_patch.workflow.stages import STAGES


def _definitions(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE of each -D, the last one of a name; cmake's NAME:TYPE=VALUE as well."""
    found = {}
    for one in given:
        match = re.fullmatch(r"([A-Za-z_][\w.-]*)(?::[A-Z]+)?=(.*)", one, re.DOTALL)
        if not match:
            raise click.BadParameter(f"'{one}' is not NAME=VALUE.", ctx, param)
        found[match[1]] = match[2]
    return found


tree_option = click.option(
    "--tree",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Your own git checkout of llama.cpp, instead of vendor/llama.cpp.",
)
preset_option = click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="native",
    show_default=True,
    help="Build preset.",
)
jobs_option = click.option(
    "-j", "--jobs", type=click.IntRange(min=1), help="Number of parallel compile jobs (default: one per core)."
)
definitions_option = click.option(
    "-D",
    "definitions",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_definitions,
    help="Option for cmake, such as GGML_NATIVE=OFF; repeatable.",
)
quick_option = click.option("--quick", is_flag=True, help="Skip align_attn's large cases.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
plot_option = click.option("--plot", metavar="FILE.svg|png", type=click.Path(path_type=Path), help="Also draw a plot.")

# of the commands that work on upstreams other than the pinned one
clone_option = click.option(
    "--clone",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A git clone of llama.cpp, for names that are commits.",
)
until_option = click.option(
    "--until",
    type=click.Choice(list(STAGES[1:])),
    default=STAGES[-1],
    show_default=True,
    help="The last stage to try.",
)
