"""The command group and the error boundary."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from qlutattn_patch.commands import usage
from qlutattn_patch.commands.command import everywhere, write_examples
from qlutattn_patch.system import console, interrupts
from qlutattn_patch.system.errors import (
    EXIT_BUG,
    EXIT_CHECK_FAILED,
    EXIT_EXPECTED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    CheckFailed,
    ExpectedError,
    UsageError,
    from_system,
    named,
)

GROUPS = {
    "All steps": ("run",),
    "Single steps": ("vendor", "generate", "apply", "revert", "status", "build", "align"),
    "Use": ("install", "wheel"),
    "Measure": ("bench", "eval", "profile", "report"),
    "Inspect": ("size", "types", "doctor"),
    "Set up": ("completion", "cache"),
    "Maintain": ("export",),
    "Other versions of llama.cpp": ("matrix", "bisect", "rebase"),
}
COMMANDS = tuple(name for names in GROUPS.values() for name in names)
_EXAMPLES = (
    ("qlutattn run", "Get llama.cpp, patch it, build it, and check it:"),
    ("qlutattn status", "Show the state, and the next command:"),
    ("qlutattn help build", "Show the help of one command:"),
)


class _LazyGroup(click.Group):
    """A group that imports a command's module on first use, so that start-up stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name == _help.name:
            return _help
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"qlutattn_patch.commands.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands in groups, one line each."""
        width = max(map(len, COMMANDS))
        for title, names in GROUPS.items():
            found = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(f"{name:{width}}", command.get_short_help_str(200)) for name, command in found if command]
            with formatter.section(title):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(_EXAMPLES, formatter)


@click.command("help")
@click.argument("name", required=False, shell_complete=lambda ctx, param, text: _starting_with(text))
@click.pass_context
def _help(ctx: click.Context, name: str | None) -> None:
    """Show the help of a command, or of the program."""
    program = ctx.find_root()
    if name is None:
        console.out(program.get_help())
        return
    command = group.get_command(program, name)
    if command is None:
        raise click.UsageError(f"No such command '{name}'.", program)
    console.out(command.get_help(click.Context(command, info_name=name, parent=program)))


def _starting_with(text: str) -> list[str]:
    return [name for name in COMMANDS if name.startswith(text)]


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
            ["-V", "--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Print the versions of qlutattn, llama.cpp and the patch set.",
        ),
        *everywhere(),
    ],
)
def group() -> None:
    """Patch llama.cpp with QLUTATTN: low-bit KV caches, and attention that reads them without decoding."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Run and exit: 0 success, 1 failed check, 2 usage, 3 expected failure, 70 internal error, 130 interrupted."""
    interrupts.install()
    code = run(argv)
    interrupts.ignore()  # nothing left to clean up
    try:
        sys.stdout.flush()
    except OSError:  # the reader has closed it, or the disk is full: `run` has said so
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's flush at exit
    sys.exit(code)


def run(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    console.configure()
    stdout = sys.stdout
    try:
        code = group.main(args=argv, prog_name="qlutattn", standalone_mode=False)
        with named("standard output"):
            sys.stdout.flush()
    except click.ClickException as failure:
        if isinstance(failure, click.exceptions.NoArgsIsHelpError):
            failure.show()
        else:
            console.error(*usage.sentence(failure))
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
        return EXIT_USAGE if isinstance(failure, UsageError) else EXIT_EXPECTED
    except BrokenPipeError:
        return EXIT_OK  # the reader of stdout, such as `head`, has closed it
    except SystemExit:
        if sys.stdout is not stdout:  # click caught the same error, wrapped stdout, and would exit with 1
            return EXIT_OK
        raise
    except Exception as failure:
        expected = from_system(failure) if isinstance(failure, OSError) else None
        if expected is None:
            return _bug(argv)
        console.error(expected.cause, expected.hint)
        return EXIT_EXPECTED
    return code if isinstance(code, int) else EXIT_OK  # --help and --version return a number


def _bug(argv: list[str] | None) -> int:
    import traceback

    where = _keep_log(f"argv: {argv if argv is not None else sys.argv[1:]}\n\n{traceback.format_exc()}")
    console.error(f"Internal error: {_last_line()}. {where}", "report it with that log")
    return EXIT_BUG


def _keep_log(text: str) -> str:
    """Write the traceback to a log file and return where it is; if that fails, return the text itself."""
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
    return f"No log could be written; its text: {text!r}."


def _last_line() -> str:
    kind, value, _ = sys.exc_info()
    return f"{kind.__name__ if kind else 'unknown'}: {value}".strip().splitlines()[0]
