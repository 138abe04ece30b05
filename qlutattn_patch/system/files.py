"""Writing files so that a reader, or the next run, never sees half of one."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath


def is_plain_path(value: str) -> bool:
    """Whether this is a relative path with forward slashes that stays below its start and out of .git folders."""
    path = PurePosixPath(value)
    plain = str(path) == value and bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    return plain and "\\" not in value and value.isprintable() and not is_of_git(path)


def is_of_git(path: PurePosixPath) -> bool:
    """Whether a path leads into a .git folder."""
    return ".git" in (part.lower() for part in path.parts)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file's contents wholly or not at all, also across a crash; one writer at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")  # what a killed run left under this name is written over
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            sync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync(descriptor: int) -> None:
    """See that what was written to a file is on the disk."""
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """See that the names in a folder are on the disk, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
