"""The user's cache directory: what is in it, and removing it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from qlutattn_patch.system.lock import locked
from qlutattn_patch.workspace import cache_dir

# Nothing else in the directory is touched, whatever $QLUTATTN_CACHE names.
PARTS = {
    "archives": "downloaded source distributions",
    "upstreams": "work trees of releases, of matrix, bisect and rebase",
    "matrix": "results of matrix",
    "wheels": "wheels of the patched llama-cpp-python",
    "log": "logs of internal errors",
}
_REMOVED = ".removed-"


@dataclass(frozen=True)
class Part:
    """A part of the cache."""

    name: str
    what: str
    path: Path
    bytes: int


def parts() -> list[Part]:
    """The parts that there are, with their sizes on disk."""
    folders = {name: cache_dir() / name for name in PARTS}
    return [Part(name, PARTS[name], path, _size(path)) for name, path in folders.items() if path.is_dir()]


def clean(names: tuple[str, ...]) -> list[Part]:
    """Remove these parts, or all; returns what was removed. A part that is being removed is there no more."""
    removed = [part for part in parts() if not names or part.name in names]
    for part in removed:
        with locked(part.path / ".lock", str(part.path)):  # of the downloads; nobody holds that of another part
            gone = part.path.rename(part.path.with_name(f"{_REMOVED}{part.name}-{os.getpid()}"))
        shutil.rmtree(gone)
    for leftover in cache_dir().glob(f"{_REMOVED}*"):  # of a command that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    return removed


def _size(folder: Path) -> int:
    """The bytes of the files below a folder; links count for themselves."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += Path(place, name).lstat().st_size
            except FileNotFoundError:  # another command has just removed it
                continue
    return total
