"""`qlutattn generate`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch import console
from qlutattn_patch.commands.options import tree_option
from qlutattn_patch.errors import CheckFailed
from qlutattn_patch.generate import Drift, generate
from qlutattn_patch.tree import held
from qlutattn_patch.workspace import Workspace


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if anything is missing, changed or orphaned.")
@tree_option
def command(check: bool, tree: Path | None) -> None:
    """Make patches/ and the generated docs from templates/ and the pristine upstream."""
    workspace = Workspace.find(tree)
    with held(workspace) as work_tree:
        generated = generate(workspace, work_tree.repository)
        drift = generated.drift() if check else generated.write()
    for item in drift:
        console.out(_line(workspace, item, check))
    if check and drift:
        raise CheckFailed(f"{len(drift)} generated files are not what templates/ say; mend with: qlutattn generate")
    count = len(generated.series.patches)
    console.step(f"{count} patches are {'as generated' if check or not drift else 'written'}.")


def _line(workspace: Workspace, item: Drift, check: bool) -> str:
    kind = item.kind if check else {"missing": "created", "orphaned": "removed"}.get(item.kind, item.kind)
    note = " (not generated: move it away)" if item.kind == "foreign" else ""
    return f"{kind:8} {item.path.relative_to(workspace.root).as_posix()}{note}"
