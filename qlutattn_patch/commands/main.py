"""The command group: registers commands, and is the one error boundary."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from qlutattn_patch.commands.command import everywhere, write_examples
from qlutattn_patch.system import console, interrupts
from qlutattn_patch.system.errors import (
    EXIT_BUG,
    EXIT_CHECK_FAILED,
    EXIT_EXPECTED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    CheckFailed,
    ExpectedError,
    from_system,
)

GROUPS = {
    "The whole job": ("run",),
    "Step by step": ("vendor", "generate", "apply", "revert", "status", "build", "align"),
    "Measure": ("bench", "eval"),
    "Look": ("types", "doctor"),
    "Maintain": ("export",),
    "Other llama.cpps": ("matrix", "bisect", "rebase"),
}
COMMANDS = tuple(name for names in GROUPS.values() for name in names)
_EXAMPLES = (
    ("qlutattn run", "Get llama.cpp, patch it, build it, and prove it:"),
    ("qlutattn status", "See where things stand, and what to type next:"),
    ("qlutattn build --help", "Read about one command:"),
)


class _LazyGroup(click.Group):
    """Imports a command's module when it is asked for, so that one command does not wait for the others' libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"qlutattn_patch.commands.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands with one line each, in groups."""
        width = max(map(len, COMMANDS))
        for title, names in GROUPS.items():
            found = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(f"{name:{width}}", command.get_short_help_str(200)) for name, command in found if command]
            with formatter.section(title):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(_EXAMPLES, formatter)


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from qlutattn_patch.commands.version import lines

        for line in lines():
            console.out(line)
        ctx.exit()


@click.command(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Say which qlutattn this is, for which llama.cpp, and with which patches.",
        ),
        *everywhere(),
    ],
)
def group() -> None:
    """Turn a stock llama.cpp into one with QLUTATTN, low-bit KV caches read straight from their codes."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Run and exit: 0 fine, 1 a check said no, 2 usage, 3 expected failure, 70 bug, 130 interrupted."""
    interrupts.install()
    code = run(argv)
    interrupts.ignore()  # all is done and said
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python writes what is left
    sys.exit(code)


def run(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    console.configure()
    stdout = sys.stdout
    try:
        code = group.main(args=argv, prog_name="qlutattn", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as failure:
        failure.show()
        return failure.exit_code
    except (KeyboardInterrupt, click.Abort):
        console.error("Interrupted.", "run the same command again")
        return EXIT_INTERRUPTED
    except CheckFailed as failure:
        if str(failure):
            console.error(str(failure))
        return EXIT_CHECK_FAILED
    except ExpectedError as failure:
        console.error(failure.cause, failure.hint)
        return EXIT_EXPECTED
    except BrokenPipeError:
        return EXIT_OK  # whoever reads what we print, `head` for one, has enough
    except SystemExit:
        if sys.stdout is not stdout:  # click has met the same, wrapped it, and would say 1
            return EXIT_OK
        raise
    except Exception as failure:
        told = from_system(failure) if isinstance(failure, OSError) else None
        if told is None:
            return _bug(argv)
        console.error(told.cause, told.hint)
        return EXIT_EXPECTED
    return code if isinstance(code, int) else EXIT_OK  # a number is from --help and --version


def _bug(argv: list[str] | None) -> int:
    import traceback

    where = _keep_log(f"argv: {argv if argv is not None else sys.argv[1:]}\n\n{traceback.format_exc()}")
    console.error(f"This is a bug in qlutattn: {_last_line()}. {where}", "report it with that log")
    return EXIT_BUG


def _keep_log(text: str) -> str:
    """Write what only we can use into a file, and say where; on stderr if nothing can be written."""
    import tempfile
    from datetime import datetime, timezone

    from qlutattn_patch.workspace import log_dir

    name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    for folder in (log_dir(), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        return f"The log is {folder / name}."
    return f"No log could be written; it would say: {text!r}."


def _last_line() -> str:
    kind, value, _ = sys.exc_info()
    return f"{kind.__name__ if kind else 'unknown'}: {value}".strip().splitlines()[0]
