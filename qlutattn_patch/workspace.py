"""Where everything is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qlutattn_patch.system.errors import ExpectedError

if TYPE_CHECKING:
    from qlutattn_patch.system.transaction import Transaction


@dataclass(frozen=True)
class Workspace:
    """The project's folders, and the llama.cpp tree that a command works on.

    `tree` is `vendor/llama.cpp` unless the user names another checkout with `--tree DIR`.
    """

    root: Path
    tree: Path

    @classmethod
    def find(cls, tree: Path | None = None, start: Path | None = None) -> Workspace:
        """Find the project that holds `start` (default: this package's own checkout, then the current folder)."""
        starts = [start] if start else [Path(__file__).resolve().parent, Path.cwd()]
        for folder in starts:
            for candidate in (folder, *folder.parents):
                if (candidate / "templates" / "formats.toml").is_file():
                    return cls(root=candidate, tree=tree.absolute() if tree else candidate / "vendor" / "llama.cpp")
        raise ExpectedError(
            f"No qlutattn project at or above {starts[-1]} (there is no templates/formats.toml).",
            "cd to your clone of qlutattn",
        )

    @property
    def is_vendored(self) -> bool:
        """Whether the tree is the project's own vendored one, and not a user's checkout."""
        return self.tree == self.root / "vendor" / "llama.cpp"

    @property
    def options(self) -> tuple[str, ...]:
        """What a command must be told to work on the same tree."""
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
        """The build tree of a preset; a user's own checkout has its own, below it."""
        return self.root / "build" / preset if self.is_vendored else self.tree / f"build-qlutattn-{preset}"


def cache_dir() -> Path:
    """The user's cache directory for downloads: $QLUTATTN_CACHE, else the platform's."""
    override = os.environ.get("QLUTATTN_CACHE")
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_cache_dir("qlutattn"))


def log_dir() -> Path:
    """Where the log of an unexpected failure goes."""
    return cache_dir() / "log"


def project_transaction(workspace: Workspace) -> Transaction:
    """Changes of the project's own files, of which the pin is the last."""
    from qlutattn_patch.system.transaction import Transaction

    return Transaction(workspace.root, workspace.root / "vendor" / ".rebase", workspace.pin_file)
