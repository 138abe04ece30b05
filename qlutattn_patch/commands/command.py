"""The base of all commands: help with examples, and the options for verbosity and colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from qlutattn_patch.system import console

_EVERYWHERE = "everywhere"


class Command(click.Command):
    """A command whose help ends with examples: pairs of a command line and its description."""

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = tuple(examples)
        self.params += everywhere()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options, then the common ones."""
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                (common if getattr(param, _EVERYWHERE, False) or "--help" in param.opts else own).append(record)
        for title, records in (("Options", own), ("Common options", common)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        write_examples(self.examples, formatter)


def write_examples(examples: Sequence[tuple[str, str]], formatter: click.HelpFormatter) -> None:
    """A section of example commands, each below its description."""
    if examples:
        with formatter.section("Examples"):
            for number, (line, what) in enumerate(examples):
                if number:
                    formatter.write_paragraph()
                formatter.write_text(what)
                formatter.write(f"{'':{formatter.current_indent + 2}}{line}\n")


def everywhere() -> list[click.Parameter]:
    """The options that the program and each command accept; each takes effect when it is parsed."""

    def apply_if_given(act: Callable[[Any], None]) -> Callable[[click.Context, click.Parameter, Any], None]:
        return lambda _, __, value: act(value) if value else None

    made = [
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=apply_if_given(lambda _: console.be_quiet()),
            help="Print only errors to stderr.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=apply_if_given(lambda _: console.be_verbose()),
            help="Print each program that is run.",
        ),
        click.Option(
            ["--color"],
            type=click.Choice(console.COLORS),
            is_eager=True,
            expose_value=False,
            callback=apply_if_given(console.set_color),
            help="Colours: on a terminal (auto; NO_COLOR and FORCE_COLOR override it), always, or never.",
        ),
    ]
    for option in made:
        setattr(option, _EVERYWHERE, True)
    return list(made)
