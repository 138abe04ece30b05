"""Digests of files, to compare archives and the inputs of each step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from qlutattn_patch.system.errors import ExpectedError

_PACKAGE = Path(__file__).resolve().parents[1]


def of_file(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def of_files(top: Path, files: Iterable[Path]) -> str:
    """The sha256 of names (below `top`) and contents; a missing file is an error."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"\0{path.relative_to(top).as_posix()}\0".encode())
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except FileNotFoundError:
            raise ExpectedError(f"There is no file {path}.", "restore it: git checkout -- that file") from None
    return digest.hexdigest()


def of_rooms(*names: str) -> str:
    """The digest of subpackages of qlutattn_patch by name: modules and data files."""
    files: list[Path] = []
    for name in names:
        found = [path for path in (_PACKAGE / name).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        if not found:
            raise FileNotFoundError(f"qlutattn_patch has no package '{name}'")
        files += found
    return of_files(_PACKAGE, files)
