"""`qlutattn cache`."""

from __future__ import annotations

import click

from qlutattn_patch.commands import complete
from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console

_ACTIONS = ("path", "size", "clean")


@click.command(
    cls=Command,
    examples=[
        ("qlutattn cache path", "Where it is:"),
        ("qlutattn cache size", "What is in it, with sizes:"),
        ("qlutattn cache clean upstreams wheels", "Two of its parts removed:"),
        ("qlutattn cache clean", "All of it removed:"),
    ],
)
@click.argument("action", type=click.Choice(_ACTIONS))
@click.argument("names", nargs=-1, metavar="[PART]...", shell_complete=complete.one_of(complete.cache_parts))
@json_option
def command(action: str, names: tuple[str, ...], as_json: bool) -> None:
    """Print where the cache of downloads is, what it takes, or remove it; everything in it can be made again."""
    from qlutattn_patch.commands.documents import CacheDocument, CachePart
    from qlutattn_patch.workflow import cache
    from qlutattn_patch.workspace import cache_dir

    if unknown := next((name for name in names if name not in cache.PARTS or action != "clean"), None):
        known = f"one of {', '.join(cache.PARTS)}" if action == "clean" else "only for clean"
        raise click.UsageError(f"The part '{unknown}' must be {known}.")
    found = cache.clean(names) if action == "clean" else cache.parts()
    if as_json:
        parts = [CachePart(part.name, part.what, str(part.path), part.bytes) for part in found]
        document(True, CacheDocument(str(cache_dir()), action == "clean", parts))
    elif action == "path":
        console.out(str(cache_dir()))
    elif action == "clean":
        console.out(f"removed {_mib(sum(part.bytes for part in found))} from {cache_dir()}")
    else:
        rows = [[part.name, _mib(part.bytes), part.what] for part in found]
        total = ["all", _mib(sum(part.bytes for part in found)), str(cache_dir())]
        console.out_table(["part", "size", "contents"], [*rows, total], right=("size",))


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
