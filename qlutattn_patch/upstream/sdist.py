"""A source distribution, from the cache or by package name with pip; its sha256 is always checked."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qlutattn_patch.system import console, digests, process
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.files import sync
from qlutattn_patch.system.lock import locked
from qlutattn_patch.upstream.pin import SdistSource

_DOWNLOAD = ".download-"


class SourceUnavailable(ExpectedError):
    """A source that is unavailable now; another one may work."""


def obtain(source: SdistSource, cache: Path) -> Path:
    """The archive of a source distribution: the cached one if intact, else downloaded and cached."""
    with _archives(cache) as folder:
        return _obtain(source, folder)


def obtain_any(package: str, version: str, cache: Path) -> tuple[Path, str]:
    """The archive of a source distribution with unknown sha256, downloaded and cached; and its sha256."""
    with _archives(cache) as folder, tempfile.TemporaryDirectory(prefix=_DOWNLOAD, dir=folder) as download:
        archive = _download(package, version, Path(download))
        sha256 = digests.of_file(archive)
        return _keep(archive, folder, sha256), sha256


def versions(package: str) -> list[str]:
    """The versions of a package that have a source distribution, the newest first, as pip lists them."""
    command = [sys.executable, "-m", "pip", "index", "versions", package, "--no-binary", package]
    result = process.capture([*command, "--disable-pip-version-check"])
    listed = re.search(r"^Available versions:(.*)$", result.stdout, re.MULTILINE)
    if result.status or not listed:
        raise SourceUnavailable(f"pip could not list the versions of {package} (exit status {result.status}).")
    return [version.strip() for version in listed[1].split(",") if version.strip()]


@contextmanager
def _archives(cache: Path) -> Iterator[Path]:
    folder = cache / "archives"
    with locked(folder / ".lock", "the download cache", patience=600):
        for leftover in folder.glob(f"{_DOWNLOAD}*"):
            shutil.rmtree(leftover)
        yield folder


def _obtain(source: SdistSource, folder: Path) -> Path:
    cached = folder / f"{source.sha256}.tar.gz"
    if cached.is_file():
        if digests.of_file(cached) == source.sha256:
            return cached
        console.warn(f"The cached archive {cached} is damaged and is downloaded again.")
        cached.unlink()
    with tempfile.TemporaryDirectory(prefix=_DOWNLOAD, dir=folder) as download:
        archive = _download(source.package, source.version, Path(download))
        found = digests.of_file(archive)
        if found != source.sha256:
            raise ExpectedError(
                f"The source distribution {source.package} {source.version} has the sha256 {found}, "
                f"not the pinned {source.sha256}.",
                "do not use it; check the pin in vendor/llama.cpp.toml",
            )
        return _keep(archive, folder, found)


def _keep(archive: Path, folder: Path, sha256: str) -> Path:
    with archive.open("rb") as file:
        sync(file.fileno())
    return archive.replace(folder / f"{sha256}.tar.gz")


def _download(package: str, version: str, folder: Path) -> Path:
    named = f"{package}=={version}"
    console.step(f"Downloading the source distribution {named} with pip.")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
    status = process.stream([*command, "--no-binary", package, "--dest", folder, named])
    archives = sorted(folder.glob("*.tar.gz"))
    if status or not archives:
        raise SourceUnavailable(f"pip could not download {named} (exit status {status}).")
    return archives[0]
