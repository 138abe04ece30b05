"""What a build is made from: digests of templates, patches and tree, compiled into the programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from msgspec.structs import asdict

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.files import write_atomically
from qlutattn_patch.system.records import Record, doc
from qlutattn_patch.tree import worktree
from qlutattn_patch.tree.worktree import Tree
from qlutattn_patch.upstream.pin import load_pin
from qlutattn_patch.workspace import Workspace

HEADER = "qlutattn-provenance.h"


class Origin(Record, frozen=True):
    """What is compiled; null is unknown."""

    templates: Annotated[str | None, doc("digest of templates/")] = None
    series: Annotated[str | None, doc("digest of the patches")] = None
    upstream: Annotated[str | None, doc("the commit of llama.cpp")] = None
    tree: Annotated[str | None, doc("id of the patched tree; with edits, +digest")] = None

    def differences(self, new: Origin) -> list[str]:
        """How another origin differs, the first cause first."""
        labels = {"upstream": "llama.cpp", "templates": "the templates", "series": "the patches"}
        found = [what for name, what in labels.items() if getattr(self, name) != getattr(new, name)]
        if not found and self.tree != new.tree:
            found = ["files of the tree"]
        return found

    def write_header(self, folder: Path) -> None:
        """Write the header that align_attn and bench_attn include, unless unchanged, to avoid a rebuild."""
        lines = ["// Written by qlutattn build: the provenance of this build (docs/provenance.md).", "#pragma once", ""]
        known = {name: value for name, value in asdict(self).items() if value}
        lines += [f"#define QLUTATTN_{name.upper()} {json.dumps(value)}" for name, value in known.items()]
        path, text = folder / HEADER, "\n".join(lines) + "\n"
        if not path.is_file() or path.read_bytes() != text.encode():
            write_atomically(path, text.encode())


def read_origin(workspace: Workspace) -> Origin:
    """The origin of a build made now; all unknown if the tree is not a git checkout."""
    try:
        return origin_of(workspace, worktree.read_tree(worktree.open_tree(workspace), workspace.tree))
    except ExpectedError:
        return Origin()


def origin_if_patched(workspace: Workspace) -> Origin | None:
    """The origin of a build made now; None if the tree is not patched."""
    return read_origin(workspace) if (workspace.tree / "tools" / "align-attn").is_dir() else None


def origin_of(workspace: Workspace, found: Tree) -> Origin:
    """The origin of a build of this tree."""
    receipt = found.receipt
    commit = receipt.commit if receipt else found.commit
    if workspace.is_vendored and found.base_id == (pin := load_pin(workspace.pin_file)).tree:
        commit = pin.commit  # the vendored tree's own commit is made by `vendor`
    return Origin(receipt.templates if receipt else None, receipt.series if receipt else None, commit, found.now())


class Provenance(Origin, frozen=True):
    """The provenance that align_attn and bench_attn report (docs/provenance.md); null is unknown."""

    ggml: Annotated[str | None, doc("ggml's version")] = None
    compiler: Annotated[str | None, doc("name and version")] = None
    flags: Annotated[str | None, doc("compiler flags")] = None
    kernel_flags: Annotated[str | None, doc("compiler flags that choose instruction sets")] = None
    build_type: Annotated[str | None, doc("such as Release")] = None
    isa: Annotated[str | None, doc("the instruction sets that ggml was built with")] = None
    cpu: Annotated[str | None, doc("the processor that it ran on")] = None
