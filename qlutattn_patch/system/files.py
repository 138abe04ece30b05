"""Atomic writing of files, and checks of paths."""

from __future__ import annotations

import os
import shlex
from pathlib import Path, PurePosixPath

from qlutattn_patch.system.errors import UsageError, named


def is_plain_path(value: str) -> bool:
    """Whether this is a relative path with forward slashes that stays below its start and outside .git folders."""
    path = PurePosixPath(value)
    plain = str(path) == value and bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    return plain and "\\" not in value and value.isprintable() and not is_of_git(path)


def files_below(folder: Path) -> list[Path]:
    """All files below a folder; one that cannot be read is an error, where rglob leaves it out."""

    def refuse(failure: OSError) -> None:
        if not isinstance(failure, FileNotFoundError):
            raise failure

    walked = os.walk(folder, onerror=refuse)
    return sorted(path for top, _, names in walked for name in names if (path := Path(top, name)).is_file())


def is_of_git(path: PurePosixPath) -> bool:
    """Whether a path leads into a .git folder."""
    return ".git" in (part.lower() for part in path.parts)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file's contents atomically, also across a crash; one writer at a time."""
    with named(path):
        _write_atomically(path, data)


def write(path: Path, data: bytes) -> None:
    """Write a file; an error names it."""
    with named(path):
        path.write_bytes(data)


def check_place(path: Path, option: str) -> None:
    """Refuse, before work begins, a file that cannot be written."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{option}: there is no folder {folder}.", f"mkdir -p {shlex.quote(str(folder))}")
    if path.is_dir():
        raise UsageError(f"{option}: {path} is a folder.", "name a file in it")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"{option}: {path} cannot be written.", "name a file in another folder")


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")  # a killed run's leftover is overwritten
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
    """Flush a file's contents to the disk."""
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system supports that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
