"""Any llama.cpp (a release, a commit of a clone, a checkout) in its own cached work tree."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.files import write_atomically
from qlutattn_patch.system.git import Repository
from qlutattn_patch.system.lock import locked
from qlutattn_patch.system.records import Versioned, encoded, read
from qlutattn_patch.system.toml import RepositoryPath
from qlutattn_patch.upstream import archive, checkout, sdist
from qlutattn_patch.upstream.pin import Pin, SdistSource

_PREFIX = RepositoryPath("vendor/llama.cpp")
_CHANGELOG = "CHANGELOG.md"
_VERSION = re.compile(r"\d+(\.\d+)+([a-z.+-].*)?")
_COMMIT = re.compile(r"llama\.cpp@([0-9a-f]{7,40})\b")


@dataclass(frozen=True)
class Upstream:
    """A llama.cpp: its name as given, its commit if known, its git tree id, and the folder of its files."""

    name: str
    commit: str | None
    tree: str
    folder: Path
    release: SdistSource | None = None


class _Release(Versioned, frozen=True):
    """The cached facts of a release, which save downloading it again."""

    sha256: str
    commit: str | None
    tree: str


def is_version(name: str) -> bool:
    """Whether a name is a release's version, and not a commit."""
    return _VERSION.fullmatch(name) is not None


def package_of(pin: Pin) -> str:
    """The package whose source distributions contain llama.cpp."""
    for source in pin.sources:
        if isinstance(source, SdistSource):
            return source.package
    raise ExpectedError(
        "The pin vendor/llama.cpp.toml names no source distribution, so there are no releases.",
        "name commits, with --clone DIR",
    )


def latest(pin: Pin, count: int) -> list[str]:
    """The versions of the newest releases, the newest first."""
    return _listed(pin, "name the versions; those in the cache need no network")[:count]


def between(pin: Pin, first: str, last: str) -> list[str]:
    """The versions of the releases from one to another, in order of release."""
    known = list(reversed(_listed(pin, "connect to a package index, or name commits, with --clone DIR")))
    for version in (first, last):
        if version not in known:
            raise ExpectedError(f"There is no release {version} of {package_of(pin)}.", "name a version that pip lists")
    return known[known.index(first) : known.index(last) + 1]


def _listed(pin: Pin, hint: str) -> list[str]:
    """The versions that pip lists, the newest first."""
    try:
        return sdist.versions(package_of(pin))
    except sdist.SourceUnavailable as failure:
        raise ExpectedError(failure.cause, hint) from None


def named(pin: Pin, name: str, clone: Path | None, cache: Path) -> Upstream:
    """The upstream of a name: a release, or a commit of the clone."""
    if is_version(name):
        return release(pin, name, cache)
    if clone is None:
        raise ExpectedError(f"'{name}' is not a version, and a commit needs a clone.", "add --clone DIR")
    return commit(clone, name, cache)


def release(pin: Pin, version: str, cache: Path) -> Upstream:
    """A release of the package that contains llama.cpp."""
    package = package_of(pin)
    file = cache / "upstreams" / "releases" / f"{package}-{version}.json"
    with locked(file.with_suffix(".lock"), f"{package} {version}", patience=3600):
        record = _read(file)
        if record is None or not _folder(cache, record.tree).is_dir():
            record = _obtain(pin, package, version, cache)
            write_atomically(file, encoded(record))
    source = SdistSource(package, version, record.sha256, _PREFIX)
    commit = pin.commit if record.tree == pin.tree else record.commit
    return Upstream(version, commit, record.tree, _folder(cache, record.tree), source)


def commit(clone: Path, revision: str, cache: Path, name: str | None = None) -> Upstream:
    """A commit of a clone of llama.cpp; the clone itself is only read."""
    repository = Repository.open(clone)
    found = repository.commit_id(revision)
    if found is None:
        raise ExpectedError(f"The clone {clone} has no commit '{revision}'.", f"git -C '{clone}' fetch --all")
    tree = repository.tree_id(found)
    with locked(cache / "upstreams" / f"{tree}.lock", f"llama.cpp {found[:12]}", patience=3600):
        if not _folder(cache, tree).is_dir():
            _make(cache, found, lambda target: checkout.check_out(repository, found, target))
    return Upstream(name or revision, found, tree, _folder(cache, tree))


def head_of(folder: Path, cache: Path) -> Upstream:
    """The HEAD of a checkout of llama.cpp, without its uncommitted changes."""
    return commit(folder, "HEAD", cache, str(folder))


def _obtain(pin: Pin, package: str, version: str, cache: Path) -> _Release:
    path, sha256 = _archive(pin, package, version, cache)
    abbreviated = _commit_named(archive.text_of(path, _CHANGELOG) or "", version)
    tree = _make(cache, abbreviated or version, lambda target: checkout.unpack(path, target, _PREFIX))
    return _Release(sha256, abbreviated, tree)


def _archive(pin: Pin, package: str, version: str, cache: Path) -> tuple[Path, str]:
    for source in pin.sources:
        if isinstance(source, SdistSource) and (source.package, source.version) == (package, version):
            return sdist.obtain(source, cache), source.sha256
    return sdist.obtain_any(package, version, cache)


def _commit_named(changelog: str, version: str) -> str | None:
    """The commit of llama.cpp that a release's changelog names: the newest one at or below the release's heading."""
    heading = re.search(rf"^##\s*\[?{re.escape(version)}\]?\s*$", changelog, re.MULTILINE)
    named = _COMMIT.search(changelog, heading.end()) if heading else None
    return named[1] if named else None


def _make(cache: Path, what: str, fill: Callable[[Path], None]) -> str:
    """Create the work tree of an upstream in a temporary folder, then move it to the folder of its tree id."""
    (cache / "upstreams").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=cache / "upstreams") as folder:
        built = Path(folder) / "llama.cpp"
        fill(built)
        repository, tree = checkout.add_all(built)
        checkout.commit(repository, tree, f"llama.cpp {what}\n\nThe pristine upstream files.\n")
        target = _folder(cache, tree)
        target.parent.mkdir(exist_ok=True)
        if not target.is_dir():
            built.rename(target)
    return tree


def _folder(cache: Path, tree: str) -> Path:
    return cache / "upstreams" / tree / "llama.cpp"


def _read(file: Path) -> _Release | None:
    try:
        return read(file, _Release)
    except (OSError, ValueError):
        return None
