"""Manual pages of the program and its commands, made from their help: make man."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from qlutattn_patch import __version__
from qlutattn_patch.commands.main import COMMANDS, group


def pages() -> dict[str, str]:
    """The pages by file name."""
    program = click.Context(group, info_name="qlutattn")
    found = {"qlutattn.1": _page(program, [])}
    for name in COMMANDS:
        command = group.get_command(program, name)
        assert command is not None
        found[f"qlutattn-{name}.1"] = _page(click.Context(command, info_name=name, parent=program), [name])
    return found


def _page(context: click.Context, words: list[str]) -> str:
    """A page in man's macros: what the help says, section by section."""
    command, title = context.command, "-".join(["qlutattn", *words])
    summary = (command.help or "").partition("\n")[0]
    lines = [
        f'.TH "{title.upper()}" "1" "" "qlutattn {__version__}" "qlutattn"',
        ".SH NAME",
        f"{title} \\- {_text(summary)}",
        ".SH SYNOPSIS",
        f"\\fB{' '.join(['qlutattn', *words])}\\fR {_text(' '.join(command.collect_usage_pieces(context)))}",
        ".SH DESCRIPTION",
        _text(command.help or ""),
    ]
    for heading, body in _sections(command.get_help(context)):
        lines += [f".SH {_text(heading.upper())}", ".nf", *map(_text, body), ".fi"]
    related = COMMANDS if not words else ("",)
    seen = ", ".join(f"\\fBqlutattn{'-' if name else ''}{name}\\fR(1)" for name in related)
    return "\n".join([*lines, ".SH SEE ALSO", seen, ""])


def _sections(help_text: str) -> Iterator[tuple[str, list[str]]]:
    """The sections of a help text that have a heading: options, groups of commands, examples."""
    heading, body = "", list[str]()
    for line in [*help_text.splitlines(), "End:"]:
        if match := re.fullmatch(r"(\w[\w .]*):", line):
            if heading:
                yield heading, body
            heading, body = match[1], []
        elif heading and line.strip():
            body.append(line.removeprefix("  "))


def _text(text: str) -> str:
    """Text in which nothing means anything to man."""
    plain = text.replace("\b", "").replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return re.sub(r"^\.", r"\\&.", plain, flags=re.MULTILINE)


def main() -> None:
    folder = Path(sys.argv[1]) / "man1"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
