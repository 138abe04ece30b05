"""Wrong usage, in the style of all errors: one sentence, and what to type next."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

import click

_COMMAND = re.compile(r"No such command '(.*?)'\.")


def sentence(failure: click.ClickException) -> tuple[str, str]:
    """The cause of a usage error, and what to type next: the word that was meant, or the command's help."""
    context = failure.ctx if isinstance(failure, click.UsageError) else None
    cause, given, known = _cause(failure, context)
    near = get_close_matches(given, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"{context.command_path if context else 'qlutattn'} --help"
    return f"{cause[:1].upper()}{cause[1:]}".removesuffix(".") + ".", hint


def _cause(failure: click.ClickException, context: click.Context | None) -> tuple[str, str, Iterable[str]]:
    """What is wrong, and where a word is unknown: that word, and those that are known."""
    message = failure.format_message()
    if isinstance(failure, click.NoSuchOption):
        params = context.command.params if context else []
        known = [name for param in params for name in (*param.opts, *param.secondary_opts)]
        return f"There is no option {failure.option_name}", failure.option_name, known
    if (found := _COMMAND.match(message)) and context and isinstance(context.command, click.Group):
        return f"There is no command '{found[1]}'", found[1], context.command.list_commands(context)
    if isinstance(failure, click.MissingParameter) or not isinstance(failure, click.BadParameter) or not failure.param:
        return message, "", ()
    name = max(failure.param.opts, key=len)
    choices = failure.param.type.choices if isinstance(failure.param.type, click.Choice) else ()
    word = re.match(r"'(.*?)'", failure.message)
    return f"{name}: {failure.message}", word[1] if word else "", [str(choice) for choice in choices]
