"""`qlutattn generate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option, tree_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.system.errors import CheckFailed
from qlutattn_patch.workspace import Workspace

if TYPE_CHECKING:
    from qlutattn_patch.commands.documents import FileKind
    from qlutattn_patch.patches.generate import Drift


@click.command(
    cls=Command,
    examples=[
        ("qlutattn generate", "After an edit in templates/:"),
        ("qlutattn generate --check", "Only check whether patches/ and docs/ are up to date:"),
    ],
)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if anything is missing, changed or orphaned.")
@json_option
@tree_option
def command(check: bool, as_json: bool, tree: Path | None) -> None:
    """Generate patches/ and parts of docs/ from templates/ and the pristine upstream."""
    from qlutattn_patch.commands import schemas
    from qlutattn_patch.commands.documents import GeneratedFile, GenerateDocument
    from qlutattn_patch.patches.generate import generate
    from qlutattn_patch.proof.codes import check_copy
    from qlutattn_patch.templates.formats import load_formats
    from qlutattn_patch.tree.worktree import locked_tree

    workspace = Workspace.find_clone("generate", tree)
    check_copy(load_formats(workspace.templates / "formats.toml").types)
    with locked_tree(workspace) as work_tree:
        generated = generate(workspace, work_tree.repository)
        generated = replace(generated, files={**generated.files, **schemas.files(workspace.root)})
        drift = generated.drift() if check else generated.write()
    ok = not (check and drift)
    if as_json:
        files = [GeneratedFile(_kind(item, check), _path(workspace, item)) for item in drift]
        names = [patch.title for patch in generated.series.patches]
        document(ok, GenerateDocument(check, generated.series.digest, names, files))
    else:
        for item in drift:
            console.out(_line(workspace, item, check))
    if not ok:
        which = "1 generated file is" if len(drift) == 1 else f"{len(drift)} generated files are"
        raise CheckFailed(f"{which} not up to date; fix with: qlutattn generate")
    count = len(generated.series.patches)
    console.step(f"{count} patches are {'as generated' if check or not drift else 'written'}.")


def _kind(item: Drift, check: bool) -> FileKind:
    if check or item.kind in ("changed", "foreign"):
        return item.kind
    return "created" if item.kind == "missing" else "removed"


def _path(workspace: Workspace, item: Drift) -> str:
    return item.path.relative_to(workspace.root).as_posix()


def _line(workspace: Workspace, item: Drift, check: bool) -> str:
    note = " (not generated: move it away)" if item.kind == "foreign" else ""
    return f"{_kind(item, check):8} {_path(workspace, item)}{note}"
