"""Export edits of the patched tree to the templates: all of them, or none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from qlutattn_patch.export.mapping import Carried, Collector
from qlutattn_patch.export.unmapped import Refused
from qlutattn_patch.patches.apply import PatchedTree, apply_series
from qlutattn_patch.patches.generate import Generated, generate
from qlutattn_patch.patches.series import Series, load_series
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.files import write_atomically
from qlutattn_patch.system.lock import locked
from qlutattn_patch.system.records import Versioned, doc
from qlutattn_patch.system.toml import read_text
from qlutattn_patch.system.transaction import Contents
from qlutattn_patch.tree.worktree import Tree, at_rest, finish_interrupted, locked_tree, write_patched
from qlutattn_patch.workspace import Workspace, project_transaction


class Exported(Versioned, frozen=True):
    """What an export did, or why it refused."""

    dry_run: Annotated[bool, doc("nothing was written")]
    carried: Annotated[tuple[Carried, ...], doc("exported edits")]
    refused: Annotated[tuple[Refused, ...], doc("refused edits")]
    warnings: Annotated[tuple[str, ...], doc("such as hooks with other variants")]
    changed: Annotated[tuple[str, ...], doc("new or changed files of the project")] = ()


def export(workspace: Workspace, dry_run: bool = False) -> Exported:
    """Export every edit, generate the patches again, and record the tree as patched with them; or change nothing."""
    finish_interrupted(workspace)
    with locked(workspace.vendor_lock, str(workspace.root)):
        project_transaction(workspace).recover()
        with at_rest(workspace), locked_tree(workspace) as tree, _staged(workspace) as staging:
            collector = Collector(staging, tree, _applied(workspace, tree), workspace.options)
            collector.collect()
            changes: dict[str, Contents | None] = {}
            if not collector.refused:
                generated, patched = _proven(staging, tree, collector)
                files = {
                    workspace.root / path.relative_to(staging.root): data for path, data in generated.files.items()
                }
                changes = _changed_templates(workspace, staging)
                changes |= Generated(generated.series, files, workspace.patches).changes(workspace.root)
                if not dry_run:
                    if changes:
                        project_transaction(workspace).run(changes, workspace.pin_file.read_bytes())
                    write_patched(tree, generated.series, patched)
            return Exported(
                dry_run, tuple(collector.carried), tuple(collector.refused), tuple(collector.warnings), tuple(changes)
            )


def _applied(workspace: Workspace, tree: Tree) -> Series | None:
    """The patches applied to the tree, if patches/ still has them; refuses a tree whose edits cannot be determined."""
    top = tree.top
    if tree.receipt is None:
        raise ExpectedError(
            f"No patches of qlutattn are applied to {top}, so its edits cannot be determined.",
            "keep your edits with git diff, git checkout those files, qlutattn apply, and make the edits again",
        )
    if tree.receipt.base != tree.base_id:
        raise ExpectedError(
            f"HEAD of {top} has moved since the patches were applied.", f"git -C '{top}' reset {tree.receipt.commit}"
        )
    staged = [path for path, letters in tree.repository.changed().items() if letters[0] not in " ?"]
    if staged:
        raise ExpectedError(
            "\n".join([f"{top} has staged changes, and apply leaves the index alone:", *(f"  {p}" for p in staged)]),
            f"git -C '{top}' reset",
        )
    try:
        series = load_series(workspace.patches)
    except ExpectedError:  # patches/ is generated again in any case
        return None
    return series if series.digest == tree.receipt.series else None


@contextmanager
def _staged(workspace: Workspace) -> Iterator[Workspace]:
    """A copy of the sources of the patches, for the same tree; errors name the original files."""
    with tempfile.TemporaryDirectory(prefix="qlutattn-") as folder:
        root = Path(folder)
        page = read_text(workspace.root / "docs" / "formats.md")
        try:
            shutil.copytree(workspace.templates, root / "templates", symlinks=True)
            write_atomically(root / "docs" / "formats.md", page.encode())
            yield Workspace(root, workspace.tree)
        except OSError as failure:
            raise ExpectedError(
                f"{failure.filename or folder} cannot be read or written: {failure.strerror or failure}.",
                "fix that, then: qlutattn export",
            ) from None
        except ExpectedError as failure:
            raise ExpectedError(failure.cause.replace(folder, str(workspace.root)), failure.hint) from None


def _proven(staging: Workspace, tree: Tree, collector: Collector) -> tuple[Generated, PatchedTree]:
    """What the edited templates generate; an ExpectedError if it is not the edited tree."""
    try:
        generated = generate(staging, tree.repository)
        patched = apply_series(tree.repository, generated.series, str(tree.top))
    except ExpectedError as failure:
        raise ExpectedError(
            f"The templates with these edits are inconsistent:\n{failure.cause}",
            "restore the text of the anchor in the tree, or fix that anchor, then: qlutattn export",
        ) from None
    for path, blob in collector.edited.items():
        entry = patched.files[path] if path in patched.files else tree.base.get(path)
        if (entry.blob if entry else None) != blob:
            raise ExpectedError(
                f"The edits of {path} cannot be exported: the edited templates do not reproduce the file.",
                "make these edits in templates/ yourself",
            )
    return generated, patched


def _changed_templates(workspace: Workspace, staging: Workspace) -> dict[str, Contents | None]:
    """The changes that export made in its copy of the templates."""
    changes: dict[str, Contents | None] = {}
    for path in sorted(path for path in staging.templates.rglob("*") if path.is_file()):
        name = path.relative_to(staging.root).as_posix()
        ours = workspace.root / name
        data = path.read_bytes()
        if not ours.is_file() or ours.read_bytes() != data:
            executable = ours.stat().st_mode & 0o100 != 0 if ours.is_file() else data.startswith(b"#!")
            changes[name] = Contents(data, executable)
    return changes
