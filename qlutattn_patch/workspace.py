"""The paths of the project."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from qlutattn_patch.system import console
from qlutattn_patch.system.errors import ExpectedError

if TYPE_CHECKING:
    from qlutattn_patch.system.transaction import Transaction


_VENDORED = Path("vendor", "llama.cpp")
_SHARE = Path(__file__).resolve().parent / "share"  # project files in a wheel


@dataclass(frozen=True)
class Workspace:
    """The folders of templates, patches and pin, and the llama.cpp tree that a command works on.

    `root` is a clone of the project, or the read-only copy in an installed package; for the latter, `data` is the
    user's folder for the vendored tree and its builds, which are in the clone otherwise.
    `tree` is `vendor/llama.cpp` in one of these unless the user names another checkout with `--tree DIR`.
    """

    root: Path
    tree: Path
    data: Path | None = None

    @classmethod
    def find(cls, tree: Path | None = None, start: Path | None = None) -> Workspace:
        """Find the clone that contains `start` (default: the current folder, this package), or the installed copy."""
        starts = [start] if start else [Path.cwd(), _SHARE.parent]
        clones = (candidate for folder in starts for candidate in (folder, *folder.parents) if _is_root(candidate))
        if root := next(clones, None):
            _warn_of_other_program(root)
            return cls(root, tree.absolute() if tree else root / _VENDORED)
        if start is None and _is_root(_SHARE):
            data = _data_dir()
            return cls(_SHARE, tree.absolute() if tree else data / _VENDORED, data)
        raise ExpectedError(
            f"No qlutattn project at or above {starts[0]} (there is no templates/formats.toml).",
            "cd to your clone of qlutattn",
        )

    @classmethod
    def find_clone(cls, command: str, tree: Path | None = None) -> Workspace:
        """Like `find`, for a command that changes templates, patches or the pin."""
        workspace = cls.find(tree)
        if not workspace.is_clone:
            raise ExpectedError(
                f"'{command}' works on templates/ and patches/ of a clone of qlutattn, and {Path.cwd()} is not in one.",
                f"clone qlutattn, then in the clone: qlutattn {command}",
            )
        return workspace

    @property
    def is_clone(self) -> bool:
        """Whether this is a clone, where templates, patches and pin may be changed."""
        return self.data is None

    @property
    def home(self) -> Path:
        """The folder of the vendored tree and its builds."""
        return self.data or self.root

    @property
    def is_vendored(self) -> bool:
        """Whether the tree is the vendored one, and not a user's checkout."""
        return self.tree == self.home / _VENDORED

    @property
    def vendor_lock(self) -> Path:
        """The lock of the vendored tree and of the project's own files."""
        return self.home / "vendor" / ".lock"

    @property
    def options(self) -> tuple[str, ...]:
        """The options that make a command work on the same tree."""
        return () if self.is_vendored else ("--tree", str(self.tree))

    @property
    def pin_file(self) -> Path:
        return self.root / "vendor" / "llama.cpp.toml"

    @property
    def patches(self) -> Path:
        return self.root / "patches"

    @property
    def templates(self) -> Path:
        return self.root / "templates"

    def build_dir(self, preset: str) -> Path:
        """The build tree of a preset; of a user's checkout, in a folder below it."""
        return self.home / "build" / preset if self.is_vendored else self.tree / f"build-qlutattn-{preset}"


def _is_root(folder: Path) -> bool:
    return (folder / "templates" / "formats.toml").is_file()


@cache
def _warn_of_other_program(root: Path) -> None:
    """Warn if the program that runs is not the one of the project that it works on."""
    own = root / _SHARE.parent.name
    if own.is_dir() and own.resolve() != _SHARE.parent and _code(own) != _code(_SHARE.parent):
        console.warn(
            f"the project in {root} has other code than the qlutattn that runs, which is {_SHARE.parent}; "
            f"to run its own: make -C {shlex.quote(str(root))} run, then {root / '.venv' / 'bin' / 'qlutattn'}"
        )


def _code(package: Path) -> dict[str, bytes]:
    return {path.relative_to(package).as_posix(): path.read_bytes() for path in package.rglob("*.py")}


def _data_dir() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("qlutattn"))


def cache_dir() -> Path:
    """The user's cache directory for downloads: $QLUTATTN_CACHE, else the platform's."""
    override = os.environ.get("QLUTATTN_CACHE")
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_cache_dir("qlutattn"))


def log_dir() -> Path:
    """The folder for logs of internal errors."""
    return cache_dir() / "log"


def project_transaction(workspace: Workspace) -> Transaction:
    """A transaction on the project's own files, with the pin as the last."""
    from qlutattn_patch.system.transaction import Transaction

    return Transaction(workspace.root, workspace.root / "vendor" / ".rebase", workspace.pin_file)
