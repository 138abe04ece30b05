"""Digests of files: what archives and the links of the chain are compared by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def of_file(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def of_files(top: Path, files: Iterable[Path]) -> str:
    """The sha256 of names (below `top`) and contents; what is no file does not count."""
    digest = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file()):
        digest.update(f"\0{path.relative_to(top).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def of_templates(folder: Path) -> str:
    """The digest of everything in templates/ that patches are made from."""
    hooks = folder / "hooks"
    read = [folder / "formats.toml", hooks / "series", *hooks.glob("*.toml"), *(folder / "overlay").rglob("*")]
    return of_files(folder, read)


def of_modules(*names: str) -> str:
    """The digest of modules of this package, by name, and of its numpy reference."""
    return of_files(_PACKAGE, [*(_PACKAGE / f"{name}.py" for name in names), *(_PACKAGE / "reference").glob("*.py")])
