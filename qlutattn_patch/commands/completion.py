"""`qlutattn completion`."""

from __future__ import annotations

import click

from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console

SHELLS = ("bash", "zsh", "fish")


@click.command(
    cls=Command,
    examples=[
        ("qlutattn completion bash", 'For bash 4.4 or newer; in ~/.bashrc: eval "$(qlutattn completion bash)":'),
        ("qlutattn completion zsh", 'For zsh; in ~/.zshrc, after compinit: eval "$(qlutattn completion zsh)":'),
        ("qlutattn completion fish", "For fish; in config.fish: qlutattn completion fish | source:"),
    ],
)
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
def command(shell: str, as_json: bool) -> None:
    """Print the script that makes a shell complete commands, options and values."""
    from click.shell_completion import get_completion_class

    from qlutattn_patch.commands.documents import CompletionDocument

    kind = get_completion_class(shell)
    assert kind is not None
    program = click.get_current_context().find_root().command
    script = kind(program, {}, "qlutattn", "_QLUTATTN_COMPLETE").source()
    if as_json:
        document(True, CompletionDocument(shell, script))
    else:
        console.out(script.rstrip("\n"))
