"""The command group: registers commands, and is the one error boundary."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback
from datetime import datetime, timezone
from pathlib import Path

import click

from qlutattn_patch import __version__, console
from qlutattn_patch.errors import (
    EXIT_BUG,
    EXIT_CHECK_FAILED,
    EXIT_EXPECTED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    CheckFailed,
    ExpectedError,
    from_system,
)
from qlutattn_patch.workspace import log_dir

COMMANDS = (
    *("run", "vendor", "generate", "apply", "revert", "status", "build", "align", "bench", "eval", "types", "doctor"),
    *("matrix", "bisect", "rebase"),
)


class _LazyGroup(click.Group):
    """Imports a command's module when it is asked for, so that `--help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"qlutattn_patch.commands.{name}").command
        return command


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="qlutattn")
def group() -> None:
    """Turn a stock llama.cpp into one with QLUTATTN, low-bit KV caches read straight from their codes."""


def main(argv: list[str] | None = None) -> None:
    """Run and exit: 0 fine, 1 a check said no, 2 usage, 3 expected failure, 70 bug, 130 interrupted."""
    sys.exit(run(argv))


def run(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        code = group.main(args=argv, prog_name="qlutattn", standalone_mode=False)
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
    except Exception as failure:
        told = from_system(failure) if isinstance(failure, OSError) else None
        if told is not None:
            console.error(told.cause, told.hint)
            return EXIT_EXPECTED
        where = _keep_log(f"argv: {argv if argv is not None else sys.argv[1:]}\n\n{traceback.format_exc()}")
        console.error(f"This is a bug in qlutattn: {_last_line()}. {where}", "report it with that log")
        return EXIT_BUG
    return code if isinstance(code, int) else EXIT_OK  # a number is from --help and --version


def _keep_log(text: str) -> str:
    """Write what only we can use into a file, and say where; on stderr if nothing can be written."""
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
