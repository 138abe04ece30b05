"""Move the project to another release: pin, patches and docs change together, or not at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from qlutattn_patch.patches.generate import generate
from qlutattn_patch.system import console
from qlutattn_patch.system.errors import CheckFailed, ExpectedError
from qlutattn_patch.system.git import Repository
from qlutattn_patch.system.lock import locked
from qlutattn_patch.system.toml import read_text
from qlutattn_patch.tree import vendor, worktree
from qlutattn_patch.upstream import releases
from qlutattn_patch.upstream.pin import GitSource, Pin, load_pin
from qlutattn_patch.upstream.releases import Upstream
from qlutattn_patch.workflow.documents import Row
from qlutattn_patch.workflow.matrix import Checker
from qlutattn_patch.workspace import Workspace, project_transaction

_HEAD = re.compile(r"\A(?:#[^\n]*\n)*")


@dataclass(frozen=True)
class Rebased:
    """What a rebase did: the stages that the new upstream passed, and the files that changed in the project."""

    row: Row
    changed: tuple[str, ...]


def rebase(workspace: Workspace, version: str, cache: Path, jobs: int | None, clone: Path | None) -> Rebased:
    """Pin a release if the patch set passes every stage on it; otherwise change nothing."""
    worktree.finish_interrupted(workspace)
    with locked(workspace.vendor_lock, str(workspace.tree)):
        project_transaction(workspace).recover()
        pin = load_pin(workspace.pin_file)
        if workspace.tree.exists():
            vendor.refuse_to_lose_work(workspace)
        release = releases.release(pin, version, cache)
        row = Checker(workspace.root, cache, jobs=jobs).check(release)
        needed = [part for part in row.optional if not part.ok]
        if not row.ok or needed:
            detail = row.detail or f"{needed[0].patch}: {needed[0].detail}"
            raise CheckFailed(f"{version} does not pass ({row.stage}); nothing was changed.\n{detail}")
        commit = _full_commit(release, clone)
        if len(commit) < 40:
            console.warn(
                f"{version} abbreviates its commit of llama.cpp ({commit}), so the pin has no git source;"
                " --clone DIR adds one"
            )
        new_pin = pin_text(read_text(workspace.pin_file), pin, release, commit)
        generated = generate(workspace, Repository.open(release.folder))
        changes = generated.changes(workspace.root)
        project_transaction(workspace).run(changes, new_pin.encode())
    console.step(f"The pin is now {version}; updating the tree.")
    vendor.vendor(workspace)
    worktree.apply(workspace, generated.series)
    return Rebased(row, ("vendor/llama.cpp.toml", *changes))


def pin_text(old: str, pin: Pin, release: Upstream, commit: str) -> str:
    """The pin file of a release, with the old file's head comment; a git source needs a full commit id."""
    source = release.release
    assert source is not None
    head = _HEAD.match(old)
    lines = ["schema = 1", f'commit = "{commit}"', f'tree = "{release.tree}"']
    lines += ["", "[[source]]", 'kind = "sdist"', f'package = "{source.package}"', f'version = "{source.version}"']
    lines += [f'sha256 = "{source.sha256}"', f'prefix = "{source.prefix}"']
    for url in [other.url for other in pin.sources if isinstance(other, GitSource) and len(commit) == 40]:
        lines += ["", "[[source]]", 'kind = "git"', f'url = "{url}"']
    return (head[0] if head else "") + "\n".join(lines) + "\n"


def _full_commit(release: Upstream, clone: Path | None) -> str:
    """The full commit id of a release, from a clone if the release abbreviates it."""
    commit = release.commit
    if clone is not None and commit is not None:
        commit = Repository.open(clone).commit_id(commit)
        if commit is None:
            raise ExpectedError(f"The clone {clone} does not have {release.commit}.", f"git -C '{clone}' fetch --all")
    if commit is None:
        raise ExpectedError(f"The release {release.name} does not name its commit of llama.cpp.", "edit the pin")
    return commit
