"""`python -m qlutattn_patch`."""

from qlutattn_patch.cli import main

main()
