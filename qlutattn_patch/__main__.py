"""The entry point, for `qlutattn` and `python -m qlutattn_patch`."""

import sys


def main() -> None:
    """Run the command line; an interrupt prints one line, even while modules are loading."""
    try:
        from qlutattn_patch.commands import main as command_line

        command_line.main()
    except KeyboardInterrupt:
        sys.stderr.write("error: Interrupted.\n  next: run the same command again\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
