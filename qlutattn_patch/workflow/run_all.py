"""The whole job: get llama.cpp, check the patches, apply them, build, prove; nothing is done twice for the same."""

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
_INSTALLED = ("vendor", "apply", "build", "align")  # a package's patches are what its templates say


def run(workspace: Workspace, preset: str, jobs: int | None = None, quick: bool = False) -> align.Report:
    """Bring everything up to date and run align_attn; what is done already is not done again."""
    step = partial(_step, _STEPS if workspace.is_clone else _INSTALLED)
    with step("vendor", f"llama.cpp as pinned{_where(workspace, workspace.tree)}"):
        if workspace.is_vendored:
            vendor.vendor(workspace)
    if workspace.is_clone:
        with step("generate", "are the patches what the templates say?"):
            _warn_of_drift(workspace)
    with step("apply", "the patches, into the tree"):
        worktree.apply(workspace, load_series(workspace.patches))
    with step("build", f"align_attn, preset {preset}{_where(workspace, workspace.build_dir(preset))}"):
        cmake.build(workspace, preset, jobs=jobs)
    with step("align", "every case, checked by align_attn and by numpy"):
        if known := align.load_fresh(workspace, preset, quick):
            report, when = known
            console.step(f"nothing has changed since it passed ({when}); to run it all the same: {report.repeat}")
            return report
        return align.align(workspace, preset, quick=quick)


def _where(workspace: Workspace, folder: Path) -> str:
    """The folder, where the user has not chosen it by choosing where the clone is."""
    return "" if workspace.is_clone else f", in {folder}"


def _warn_of_drift(workspace: Workspace) -> None:
    """The patches that are committed are what is used: making them anew is a command of its own."""
    drift = generate(workspace, worktree.open_tree(workspace)).drift()
    if drift:
        names = ", ".join(f"{item.path.relative_to(workspace.root).as_posix()} ({item.kind})" for item in drift[:5])
        more = f" and {len(drift) - 5} more" if len(drift) > 5 else ""
        console.warn(f"not what templates/ say, and used as it is: {names}{more}; to mend: qlutattn generate")


@contextmanager
def _step(names: Sequence[str], name: str, what: str) -> Iterator[None]:
    number = f"[{names.index(name) + 1}/{len(names)}] {name:8}"
    console.step(f"{number} {what}")
    start = time.monotonic()
    yield
    console.step(f"{number} done in {time.monotonic() - start:.1f} s")
