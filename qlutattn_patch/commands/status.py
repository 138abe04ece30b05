"""`qlutattn status`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option, tree_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.workspace import Workspace

if TYPE_CHECKING:
    from qlutattn_patch.building.results import StoredResult
    from qlutattn_patch.workflow.status import Build, Status

_RESULTS = ("result", "build", "of", "when", "cpu")


@click.command(
    cls=Command,
    examples=[
        ("qlutattn status", "The state of vendor/llama.cpp, and the next command:"),
        ("qlutattn status --tree ../llama.cpp", "The same for a checkout of your own:"),
        ("qlutattn status --json", "As JSON:"),
    ],
)
@json_option
@tree_option
def command(as_json: bool, tree: Path | None) -> None:
    """Report the state of the tree, and each stale link from templates to results, with its cause and its fix."""
    from qlutattn_patch.workflow.status import document_of, read_status

    workspace = Workspace.find(tree)
    status = read_status(workspace)
    if as_json:
        document(True, document_of(status))
        return
    console.out(f"{workspace.tree}: {console.state(status.state)}")
    console.out(f"pin: llama.cpp {status.pin.commit}")
    for name, digest in _digests(status):
        console.out(f"{name}: {digest}")
    for path in status.foreign:
        console.out(f"yours: {path}")
    if status.series is not None:
        rows = [(patch.title, str(len(patch.files)), str(patch.upstream_lines)) for patch in status.series.patches]
        console.out_table(("patch", "files", "upstream lines"), rows, right=("files", "upstream lines"))
    results = [row for build in status.builds for row in _rows(build)]
    if results:
        console.out_table(_RESULTS, results)
    for item in status.stale:
        console.out(f"{console.state('stale')}: {item.link}: {item.why}")
        console.out(f"  next: {item.next}")
    if following := _next(status.state, workspace, status.series is not None):
        console.out(f"next: {following}")


def _next(state: str, workspace: Workspace, has_series: bool) -> str | None:
    """What to type next in this state, if there is anything to do."""
    from qlutattn_patch.system.process import shown

    if state == "absent":
        return "qlutattn vendor"
    if state == "clean" and has_series:
        return shown(["qlutattn", "apply", *workspace.options])
    if state != "dirty":
        return None
    export = shown(["qlutattn", "export", *workspace.options])
    also = f"{export}, which writes your changes to templates/; or " if workspace.is_clone else ""
    return f"{also}commit, stash or move your changes away"


def _digests(status: Status) -> list[tuple[str, str]]:
    """The digests from templates to tree, labelled as in `align_attn --version`."""
    series = status.series.digest if status.series else None
    known = [("templates", status.templates), ("series", series), ("tree", status.now.tree)]
    return [(name, digest) for name, digest in known if digest]


def _rows(build: Build) -> list[tuple[str, ...]]:
    of = {kind: kept.of.compiler for kind, kept in build.results.items()}
    return [(_format_result(kept), build.preset, of[kind], kept.when, kept.cpu) for kind, kept in build.results.items()]


def _format_result(kept: StoredResult) -> str:
    part = ", partial" if kept.part else ""
    if "passed" in kept.result:
        return f"{kept.kind}{part}: {kept.result['passed']} passed, {kept.result.get('failed')} failed"
    return f"{kept.kind}{part}: {len(kept.result.get('rows', ()))} rows"
