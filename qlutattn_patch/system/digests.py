"""Digests of files: what archives and the links of the chain are compared by."""

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
    """The sha256 of names (below `top`) and contents; a file that is missing is an error, since its digest would be."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"\0{path.relative_to(top).as_posix()}\0".encode())
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except FileNotFoundError:
            raise ExpectedError(f"There is no file {path}.", "get it back: git checkout -- that file") from None
    return digest.hexdigest()


def of_rooms(*names: str) -> str:
    """The digest of whole packages below this one, by name: all their modules, and what lies beside these."""
    files: list[Path] = []
    for name in names:
        found = [path for path in (_PACKAGE / name).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        if not found:
            raise FileNotFoundError(f"qlutattn_patch has no package '{name}'")
        files += found
    return of_files(_PACKAGE, files)
