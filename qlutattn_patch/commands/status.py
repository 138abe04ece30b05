"""`qlutattn status`."""

from __future__ import annotations

from dataclasses import asdict
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

_NEXT = {
    "absent": "qlutattn vendor",
    "clean": "qlutattn apply",
    "dirty": "commit, stash or move your changes away",
}
_RESULTS = ("result", "build", "of", "when", "cpu")


@click.command(
    cls=Command,
    examples=[
        ("qlutattn status", "The state of vendor/llama.cpp, and what to type next:"),
        ("qlutattn status --tree ../llama.cpp", "The same for a checkout of your own:"),
        ("qlutattn status --json", "As JSON:"),
    ],
)
@json_option
@tree_option
def command(as_json: bool, tree: Path | None) -> None:
    """Say what state the tree is in, and which link from templates to results is stale, why, and what mends it."""
    from qlutattn_patch.workflow.status import read_status

    workspace = Workspace.find(tree)
    status = read_status(workspace)
    if as_json:
        document(True, _record(status))
        return
    console.out(f"{workspace.tree}: {status.state}")
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
        console.out(f"stale: {item.link}: {item.why}")
        console.out(f"  next: {item.next}")
    if status.state in _NEXT:
        export = "qlutattn export, which carries your changes back to templates/; or "
        also = export if status.state == "dirty" and workspace.is_clone else ""
        console.out(f"next: {also}{_NEXT[status.state]}")


def _digests(status: Status) -> list[tuple[str, str]]:
    """The near end of the chain, in the words of `align_attn --version`."""
    series = status.series.digest if status.series else None
    known = [("templates", status.templates), ("series", series), ("tree", status.now.tree)]
    return [(name, digest) for name, digest in known if digest]


def _rows(build: Build) -> list[tuple[str, ...]]:
    of = {kind: kept.of.compiler for kind, kept in build.results.items()}
    return [(_format_result(kept), build.preset, of[kind], kept.when, kept.cpu) for kind, kept in build.results.items()]


def _format_result(kept: StoredResult) -> str:
    part = ", a part" if kept.part else ""
    if "passed" in kept.result:
        return f"{kept.kind}{part}: {kept.result['passed']} passed, {kept.result.get('failed')} failed"
    return f"{kept.kind}{part}: {len(kept.result.get('rows', ()))} rows"


def _record(status: Status) -> dict[str, object]:
    patches = status.series.patches if status.series else ()
    return {
        "pin": {"commit": status.pin.commit, "tree": status.pin.tree},
        "state": status.state,
        "stale": [asdict(item) for item in status.stale],
        "series": status.series.digest if status.series else None,
        "yours": list(status.foreign),
        "patches": [
            {
                "name": patch.title,
                "files": [file.path for file in patch.files],
                "upstream_lines": patch.upstream_lines,
            }
            for patch in patches
        ],
        "chain": _chain(status),
    }


def _chain(status: Status) -> dict[str, object]:
    """Every receipt, from the templates to the results; without the lists of files, and without the rows."""
    receipt = status.receipt
    made = status.series.receipt if status.series else None
    applied = ("commit", "base", "series", "templates", "result")
    return {
        "templates": status.templates,
        "patches": asdict(made) if made else None,
        "tree": {**{name: getattr(receipt, name) for name in applied}, "now": status.now.tree} if receipt else None,
        "builds": [
            {
                "preset": build.preset,
                "targets": {
                    name: {"origin": built.origin.json, "facts": dict(built.facts)}
                    for name, built in build.targets.items()
                },
                "results": {kind: _brief(kept) for kind, kept in build.results.items()},
            }
            for build in status.builds
        ],
    }


def _brief(kept: StoredResult) -> dict[str, object]:
    wanted = ("ok", "passed", "failed", "arguments", "model", "text")
    counted = {"rows": len(kept.result["rows"])} if "rows" in kept.result else {}
    return {
        **{"when": kept.when, "part": kept.part, "cpu": kept.cpu, "kernel": kept.kernel},
        **{"of": kept.of.origin.json, "facts": dict(kept.of.facts)},
        "result": {name: kept.result[name] for name in wanted if name in kept.result} | counted,
    }
