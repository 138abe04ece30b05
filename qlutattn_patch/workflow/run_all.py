"""Run every step: get llama.cpp, check the patches, apply, build, align; finished steps are skipped."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from qlutattn_patch.building import cmake
from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.proof import align
from qlutattn_patch.system import console
from qlutattn_patch.tree import vendor, worktree
from qlutattn_patch.workspace import Workspace

_STEPS = ("vendor", "generate", "apply", "build", "align")
_INSTALLED = ("vendor", "apply", "build", "align")  # the patches in a package are always up to date


def run(workspace: Workspace, preset: str, jobs: int | None = None, quick: bool = False) -> align.Report:
    """Bring everything up to date and run align_attn; finished steps are skipped."""
    step = partial(_step, _STEPS if workspace.is_clone else _INSTALLED)
    with step("vendor", f"the pinned llama.cpp{_where(workspace, workspace.tree)}"):
        if workspace.is_vendored:
            vendor.vendor(workspace)
    if workspace.is_clone:
        with step("generate", "check that the patches match the templates"):
            _warn_of_drift(workspace)
    with step("apply", "apply the patches to the tree"):
        worktree.apply(workspace, load_series(workspace.patches))
    with step("build", f"align_attn, preset {preset}{_where(workspace, workspace.build_dir(preset))}"):
        cmake.build(workspace, preset, jobs=jobs)
    with step("align", f"{'the quick' if quick else 'all'} cases, and the dump in numpy"):
        if known := align.load_fresh(workspace, preset, quick):
            report, when = known
            console.step(f"unchanged since it passed ({when}); to run it again: {report.repeat}")
            return report
        return align.align(workspace, preset, quick=quick)


def _where(workspace: Workspace, folder: Path) -> str:
    """The folder, unless it is in the user's clone."""
    return "" if workspace.is_clone else f", in {folder}"


def _warn_of_drift(workspace: Workspace) -> None:
    """Warn if the patches do not match the templates; they are used unchanged."""
    drift = generate(workspace, worktree.open_tree(workspace)).drift()
    if drift:
        names = ", ".join(f"{item.path.relative_to(workspace.root).as_posix()} ({item.kind})" for item in drift[:5])
        more = f" and {len(drift) - 5} more" if len(drift) > 5 else ""
        console.warn(f"not up to date with templates/, and used unchanged: {names}{more}; to fix: qlutattn generate")


@contextmanager
def _step(names: Sequence[str], name: str, what: str) -> Iterator[None]:
    number = f"[{names.index(name) + 1}/{len(names)}] {name:8}"
    console.step(f"{number} {what}")
    start = time.monotonic()
    yield
    console.step(f"{number} done in {time.monotonic() - start:.1f} s")
