"""A source distribution, from the cache or by package name with pip; its sha256 is always checked."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from qlutattn_patch import console, process
from qlutattn_patch.config import SdistSource
from qlutattn_patch.errors import ExpectedError
from qlutattn_patch.files import sync
from qlutattn_patch.lock import locked


class SourceUnavailable(ExpectedError):
    """A source that cannot provide the files now; another one may."""


def obtain(source: SdistSource, cache: Path) -> Path:
    """The archive of a source distribution: the cached one if it is whole, else downloaded and cached."""
    folder = cache / "archives"
    with locked(folder / ".lock", "the download cache", patience=600):
        for leftover in folder.glob(".download-*"):
            shutil.rmtree(leftover)
        return _obtain(source, folder)


def _obtain(source: SdistSource, folder: Path) -> Path:
    cached = folder / f"{source.sha256}.tar.gz"
    if cached.is_file():
        if sha256_of(cached) == source.sha256:
            return cached
        console.warn(f"The cached archive {cached} is damaged: it is fetched again.")
        cached.unlink()
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as download:
        archive = _download(source, Path(download))
        found = sha256_of(archive)
        if found != source.sha256:
            raise ExpectedError(
                f"The source distribution {source.package} {source.version} has the sha256 {found}, "
                f"not the pinned {source.sha256}.",
                "do not use it; check the pin in vendor/llama.cpp.toml",
            )
        with archive.open("rb") as file:
            sync(file.fileno())
        archive.replace(cached)
    return cached


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _download(source: SdistSource, folder: Path) -> Path:
    named = f"{source.package}=={source.version}"
    console.step(f"Downloading the source distribution {named} with pip.")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
    status = process.stream([*command, "--no-binary", source.package, "--dest", folder, named])
    archives = sorted(folder.glob("*.tar.gz"))
    if status or not archives:
        raise SourceUnavailable(f"pip could not download {named} (exit status {status}).")
    return archives[0]
