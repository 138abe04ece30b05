"""Options of the commands that work on other llama.cpps than the pinned one."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch.stages import STAGES

clone_option = click.option(
    "--clone",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A git clone of llama.cpp, in which names that are no versions are looked up.",
)
until_option = click.option(
    "--until",
    type=click.Choice(list(STAGES[1:])),
    default=STAGES[-1],
    show_default=True,
    help="The last stage to try.",
)
