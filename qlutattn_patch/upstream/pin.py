"""The pin of the upstream tree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, field

from qlutattn_patch.system.records import Record, Versioned
from qlutattn_patch.system.toml import RepositoryPath, Version, load

_COMMIT = "40 lower-case hexadecimal digits"
_TreeId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{40}\Z", description=_COMMIT)]


class SdistSource(Record, frozen=True, tag_field="kind", tag="sdist"):
    """A source distribution on the Python package index that contains the upstream files in a folder."""

    package: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]*\Z", description="a package name")]
    version: Version
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="64 lower-case hexadecimal digits")]
    prefix: RepositoryPath


class GitSource(Record, frozen=True, tag_field="kind", tag="git"):
    """A git repository that has the pinned commit."""

    url: Annotated[str, Meta(pattern=r"\A[^-\s][^\s]*\Z", description="a URL")]


class Pin(Versioned, frozen=True):
    """The pinned upstream: its commit, the git tree id of its files, and its sources.

    The tree id identifies the files; `commit` is abbreviated if the release abbreviates it.
    """

    commit: Annotated[str, Meta(pattern=r"\A[0-9a-f]{7,40}\Z", description="7 to 40 lower-case hexadecimal digits")]
    tree: _TreeId
    sources: tuple[SdistSource | GitSource, ...] = field(name="source", default=())

    def __post_init__(self) -> None:
        if len(self.commit) < 40 and any(isinstance(source, GitSource) for source in self.sources):
            raise ValueError(f"'commit' must be {_COMMIT} for git to fetch it")


class Pinned(Record, frozen=True):
    """The commit and tree that vendor/llama.cpp.toml pins."""

    commit: Annotated[str, Meta(pattern="^[0-9a-f]{7,40}$", description="the commit of llama.cpp, or its first digits")]
    tree: Annotated[str, Meta(pattern="^[0-9a-f]{40}$", description="the git tree id of its files")]


def load_pin(path: Path) -> Pin:
    """Read `vendor/llama.cpp.toml`."""
    return load(path, Pin)
