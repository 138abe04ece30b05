"""Releases of a package that carries the small upstream, in a folder that is all the index that pip has."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from helpers import UPSTREAM, Project, make_tar, write_pin

from qlutattn_patch.system import digests
from qlutattn_patch.upstream import sdist

PACKAGE = "tiny-llama"
BACKEND = """\
from pathlib import Path

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = Path(metadata_directory) / "tiny_llama-VERSION.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: tiny-llama\\nVersion: VERSION\\n")
    return folder.name
"""
PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "tiny-llama"
version = "VERSION"
"""


def only_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place from which pip can get packages."""
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def copy_from(index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy what is in the index, and call pip for the rest only: each call of it takes most of a second."""
    download = sdist._download

    def copy(package: str, version: str, folder: Path) -> Path:
        archive = index / f"{package.replace('-', '_')}-{version}.tar.gz"
        return Path(shutil.copy(archive, folder)) if archive.exists() else download(package, version, folder)

    monkeypatch.setattr(sdist, "_download", copy)
    return index


def make_release(index: Path, version: str, files: Mapping[str, str | None] | None = None, says: str = "") -> Path:
    """A release whose llama.cpp is the small upstream with other files (None: without it); `says` is its changelog."""
    top = f"tiny_llama-{version}"
    upstream = {name: text for name, text in {**UPSTREAM, **(files or {})}.items() if text is not None}
    members = {f"{top}/vendor/llama.cpp/{name}": text.encode() for name, text in upstream.items()}
    members |= {
        f"{top}/pyproject.toml": PYPROJECT.replace("VERSION", version).encode(),
        f"{top}/backend.py": BACKEND.replace("VERSION", version).encode(),
        f"{top}/PKG-INFO": f"Metadata-Version: 2.1\nName: tiny-llama\nVersion: {version}\n".encode(),
        f"{top}/CHANGELOG.md": says.encode(),
        f"{top}/vendor/llama.cpp/.git": b"gitdir: ../nowhere\n",
    }
    return make_tar(index / f"{top}.tar.gz", members, (".sh",))


def pin_release(project: Project, archive: Path, version: str, more: str = "") -> None:
    """Pin a release; the commit is the one at HEAD of the project's upstream."""
    source = f"""\
[[source]]
kind = "sdist"
package = "{PACKAGE}"
version = "{version}"
sha256 = "{digests.of_file(archive)}"
prefix = "vendor/llama.cpp"
"""
    write_pin(project.root, project.upstream, source + more)
