"""Where the program starts, as `qlutattn` and as `python -m qlutattn_patch`."""

import sys


def main() -> None:
    """Run the command line; an interrupt is told in one line also while the modules are loading."""
    try:
        from qlutattn_patch.commands import main as command_line

        command_line.main()
    except KeyboardInterrupt:
        sys.stderr.write("error: Interrupted.\n  next: run the same command again\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
