"""The pin of the upstream tree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qlutattn_patch.system.toml import TomlTable, matching, read_toml, repository_path, version


@dataclass(frozen=True)
class SdistSource:
    """A source distribution on the Python package index that carries the upstream files in a folder."""

    package: str
    version: str
    sha256: str
    prefix: str


@dataclass(frozen=True)
class GitSource:
    """A git repository that has the pinned commit."""

    url: str


@dataclass(frozen=True)
class Pin:
    """The upstream that everything is made for: its commit, the git tree id of its files, and who can provide them.

    The tree id says what the files are; of a release that names its commit by the first digits only, so does the pin.
    """

    commit: str
    tree: str
    sources: tuple[SdistSource | GitSource, ...]


def load_pin(path: Path) -> Pin:
    """Read `vendor/llama.cpp.toml`."""
    fields = read_toml(path)
    fields.schema()
    pin = Pin(
        commit=matching(fields, "commit", "[0-9a-f]{7,40}", "40 lower-case hexadecimal digits"),
        tree=_hex(fields, "tree", 40),
        sources=tuple(_source(source) for source in fields.tables("source")),
    )
    fields.done()
    if len(pin.commit) < 40 and any(isinstance(source, GitSource) for source in pin.sources):
        raise fields.wrong("'commit' must be 40 lower-case hexadecimal digits for git to fetch it")
    return pin


def _source(fields: TomlTable) -> SdistSource | GitSource:
    kind = fields.text("kind")
    source: SdistSource | GitSource
    if kind == "sdist":
        source = SdistSource(
            package=matching(fields, "package", r"[A-Za-z0-9][A-Za-z0-9._-]*", "a package name"),
            version=version(fields, "version"),
            sha256=_hex(fields, "sha256", 64),
            prefix=repository_path(fields, "prefix", fields.text("prefix")),
        )
    elif kind == "git":
        source = GitSource(url=matching(fields, "url", r"[^-\s][^\s]*", "a URL"))
    else:
        raise fields.wrong(f"'kind' is '{kind}', not 'sdist' or 'git'")
    fields.done()
    return source


def _hex(fields: TomlTable, key: str, digits: int) -> str:
    return matching(fields, key, f"[0-9a-f]{{{digits}}}", f"{digits} lower-case hexadecimal digits")
