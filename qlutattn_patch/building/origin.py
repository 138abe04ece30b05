"""What a build is made from: the near end of the chain, as the tree has it, and as programs learn it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.files import write_atomically
from qlutattn_patch.tree import worktree
from qlutattn_patch.tree.worktree import Tree
from qlutattn_patch.upstream.pin import load_pin
from qlutattn_patch.workspace import Workspace

HEADER = "qlutattn-provenance.h"


@dataclass(frozen=True)
class Origin:
    """Digests of templates and patches, the upstream commit, the tree that is compiled; None is what nobody knows."""

    templates: str | None = None
    series: str | None = None
    upstream: str | None = None
    tree: str | None = None

    @property
    def json(self) -> dict[str, str | None]:
        return asdict(self)

    def differences(self, new: Origin) -> list[str]:
        """What another origin has otherwise, in words, the first cause first."""
        words = {"upstream": "llama.cpp", "templates": "the templates", "series": "the patches"}
        found = [what for name, what in words.items() if getattr(self, name) != getattr(new, name)]
        if not found and self.tree != new.tree:
            found = ["files of the tree"]
        return found

    def write_header(self, folder: Path) -> None:
        """Write what align_attn and bench_attn include; what is so already is left alone, and nothing rebuilt."""
        lines = ["// Written by qlutattn build: what is compiled here (docs/provenance.md).", "#pragma once", ""]
        lines += [f"#define QLUTATTN_{name.upper()} {json.dumps(value)}" for name, value in self.json.items() if value]
        path, text = folder / HEADER, "\n".join(lines) + "\n"
        if not path.is_file() or path.read_bytes() != text.encode():
            write_atomically(path, text.encode())


def read_origin(workspace: Workspace) -> Origin:
    """The origin of what would be built now; of a tree that is no git checkout nothing is known."""
    try:
        return origin_of(workspace, worktree.read_tree(worktree.open_tree(workspace), workspace.tree))
    except ExpectedError:
        return Origin()


def origin_of(workspace: Workspace, found: Tree) -> Origin:
    """The origin of what would be built of a tree."""
    receipt = found.receipt
    commit = receipt.commit if receipt else found.commit
    if workspace.is_vendored and found.base_id == (pin := load_pin(workspace.pin_file)).tree:
        commit = pin.commit  # the vendored tree's own commit is made here
    return Origin(receipt.templates if receipt else None, receipt.series if receipt else None, commit, found.now())


def origin_from(raw: object) -> Origin:
    """The origin that a file holds; whatever is no origin is unknown."""
    known = raw if isinstance(raw, dict) else {}
    values = {field.name: known.get(field.name) for field in fields(Origin)}
    return Origin(**{name: value for name, value in values.items() if isinstance(value, str)})
