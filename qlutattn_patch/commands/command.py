"""What every command has: help with examples, and the options that say how much is told and in which colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from qlutattn_patch.system import console

_EVERYWHERE = "everywhere"


class Command(click.Command):
    """A command whose help ends with examples: pairs of what to type and what that does."""

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = tuple(examples)
        self.params += everywhere()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options, then those that every command has."""
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                (common if getattr(param, _EVERYWHERE, False) or "--help" in param.opts else own).append(record)
        for title, records in (("Options", own), ("Options of every command", common)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        write_examples(self.examples, formatter)


def write_examples(examples: Sequence[tuple[str, str]], formatter: click.HelpFormatter) -> None:
    """A section of commands to type, each below what it does."""
    if examples:
        with formatter.section("Examples"):
            for number, (line, what) in enumerate(examples):
                if number:
                    formatter.write_paragraph()
                formatter.write_text(what)
                formatter.write(f"{'':{formatter.current_indent + 2}}{line}\n")


def everywhere() -> list[click.Parameter]:
    """The options that the program and each of its commands have; they count from where they stand on."""

    def told(act: Callable[[Any], None]) -> Callable[[click.Context, click.Parameter, Any], None]:
        return lambda _, __, value: act(value) if value else None

    made = [
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=told(lambda _: console.be_quiet()),
            help="Say nothing on stderr but errors.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=told(lambda _: console.be_verbose()),
            help="Say which programs are run.",
        ),
        click.Option(
            ["--color"],
            type=click.Choice(console.COLORS),
            is_eager=True,
            expose_value=False,
            callback=told(console.set_color),
            help="Colours: where there is a terminal (auto, which NO_COLOR and FORCE_COLOR change), always, or never.",
        ),
    ]
    for option in made:
        setattr(option, _EVERYWHERE, True)
    return list(made)
