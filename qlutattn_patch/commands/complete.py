"""Shell completion of values, from local files only, without network access."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.workspace import Workspace, cache_dir

_TARGET = re.compile(r"^\s*(?:set\s*\(\s*TARGET|add_executable\s*\()\s*([\w-]+)", re.MULTILINE)
_SIZES = ("", "+w256+s128")

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def one_of(find: Callable[[], Iterable[str]]) -> Complete:
    """Complete one word; complete nothing if the project cannot be read."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in _found(find) if word.startswith(incomplete)]

    return complete


def list_of(find: Callable[[], Iterable[str]]) -> Complete:
    """Complete the last word of a comma-separated list, without repeating words."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        *before, last = incomplete.split(",")
        head = "".join(f"{word}," for word in before)
        return [CompletionItem(head + w) for w in _found(find) if w.startswith(last) and w not in before]

    return complete


def caches() -> list[str]:
    """The caches that eval accepts: upstream's, and each packed pair, without and with window and sink."""
    from qlutattn_patch.measure.caches import UPSTREAM

    keys, values = _sides()
    pairs = [*(k + v for k in keys for v in values), *keys, *values]
    return [*UPSTREAM, *(pair + size for pair in pairs for size in _SIZES)]


def bench_caches() -> list[str]:
    """The caches that bench accepts."""
    keys, values = _sides()
    pairs = [k + v for k in keys for v in values]
    return ["f16", "q8_0", "q4_0", *(pair + size for pair in pairs for size in ("", "+w512")), "w512"]


def cache_parts() -> list[str]:
    """The parts of the cache that `cache clean` removes."""
    from qlutattn_patch.workflow.cache import PARTS

    return list(PARTS)


def shapes() -> list[str]:
    """The models whose shape `size` knows."""
    from qlutattn_patch.measure.shapes import NAMES

    return list(NAMES)


def targets() -> list[str]:
    """The programs in the tree's cmake files, align_attn and the benchmarks first."""
    tree = Workspace.find().tree
    files = [path for top in ("tools", "examples") for path in (tree / top).glob("*/CMakeLists.txt")]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(files)]
    return list(
        dict.fromkeys(
            ["align_attn", "bench_attn", "bench_sampling", *(name for text in texts for name in _TARGET.findall(text))]
        )
    )


def releases() -> list[str]:
    """The cached releases, and the pinned one."""
    from qlutattn_patch.upstream.pin import SdistSource, load_pin

    sources = load_pin(Workspace.find().pin_file).sources
    package, pinned = next((s.package, s.version) for s in sources if isinstance(s, SdistSource))
    cached = (cache_dir() / "upstreams" / "releases").glob(f"{package}-*.json")
    versions = {pinned, *(path.stem.removeprefix(f"{package}-") for path in cached)}
    return sorted(versions, key=lambda version: [int(part) for part in re.findall(r"\d+", version)], reverse=True)


def _sides() -> tuple[list[str], list[str]]:
    from qlutattn_patch.templates.formats import load_formats

    types = load_formats(Workspace.find().templates / "formats.toml").types
    found = [sorted({f"{t.side.upper()}{t.bits}" for t in types if t.side == side}, reverse=True) for side in "kv"]
    return found[0], found[1]


def _found(find: Callable[[], Iterable[str]]) -> list[str]:
    try:
        return list(find())
    except (ExpectedError, OSError, StopIteration):
        return []
