"""Create the pinned upstream as a git work tree: built elsewhere, verified, then moved in place by one rename."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from qlutattn_patch.system import console
from qlutattn_patch.system.errors import ExpectedError, UsageError
from qlutattn_patch.system.git import GitError, Repository
from qlutattn_patch.system.lock import locked
from qlutattn_patch.tree.worktree import OLD, Tree, at_rest, finish_interrupted, locked_tree
from qlutattn_patch.upstream import checkout, sdist
from qlutattn_patch.upstream.layout import LANDMARKS
from qlutattn_patch.upstream.pin import GitSource, Pin, SdistSource, load_pin
from qlutattn_patch.upstream.sdist import SourceUnavailable
from qlutattn_patch.workspace import Workspace, cache_dir

_NEW = ".new-"
_ATTEMPTS = 10
_FROM = "name a git checkout, a folder or an archive of it with --from: qlutattn vendor --help"


def vendor(workspace: Workspace, given: Path | None = None) -> bool:
    """Bring the vendored tree to the pin; returns whether anything changed."""
    if given is not None and not given.exists():
        raise UsageError(f"There is no file or folder {given}.", _FROM)
    finish_interrupted(workspace)
    pin = load_pin(workspace.pin_file)
    folder = workspace.tree.parent
    with locked(workspace.vendor_lock, str(workspace.tree)):
        _remove_leftovers(folder)
        if workspace.tree.exists():
            if _is_at_pin(workspace, pin):
                return False
            with at_rest(workspace):
                refuse_to_lose_work(workspace)
                _replace(workspace, pin, given)
        else:
            _replace(workspace, pin, given)
        _remove_leftovers(folder)
    return True


def _replace(workspace: Workspace, pin: Pin, given: Path | None) -> None:
    built = workspace.tree.parent / f"{_NEW}{_unique()}"
    try:
        _fill(built, pin, given)
        _make_repository(built, pin)
        _put_in_place(built, workspace.tree)
    finally:
        shutil.rmtree(built, ignore_errors=True)


# --- the existing tree


def _is_at_pin(workspace: Workspace, pin: Pin) -> bool:
    with locked_tree(workspace) as tree:
        return tree.base_id == pin.tree


def refuse_to_lose_work(workspace: Workspace) -> None:
    """Refuse to replace a tree with changes that `vendor` and `apply` did not make."""
    with locked_tree(workspace) as tree:
        if refused := work_of_user(tree):
            raise refused


def work_of_user(tree: Tree) -> ExpectedError | None:
    """Why a tree at another pin must not be replaced: changes or commits that are in it alone."""
    hint = f"save your work, move {tree.top} away, then: qlutattn vendor"
    foreign = tree.foreign_changes()
    if foreign:
        listed = "\n".join(f"  {path}" for path in foreign)
        return ExpectedError(f"{tree.top} is at another pin and has changes:\n{listed}", hint)
    commits = tree.repository.line("rev-list", "--all", "--reflog", "HEAD").split()
    if commits != [tree.commit]:
        return ExpectedError(f"{tree.top} is at another pin and has commits of its own.", hint)
    return None


def _remove_leftovers(folder: Path) -> None:
    """Remove leftovers of killed runs; a git process of such a run may still be writing for a moment."""
    for leftover in [*folder.glob(f"{_NEW}*"), *folder.glob(f"{OLD}*")]:
        for attempt in range(_ATTEMPTS):
            try:
                shutil.rmtree(leftover)
                break
            except OSError as failure:
                if attempt == _ATTEMPTS - 1:
                    raise ExpectedError(
                        f"{leftover}, a leftover of an earlier run, cannot be removed: {failure.strerror}.",
                        "remove it, then: qlutattn vendor",
                    ) from None
                time.sleep(0.5)


def _unique() -> str:
    return f"{os.getpid()}-{time.time_ns():x}"


# --- the files


def _fill(target: Path, pin: Pin, given: Path | None) -> None:
    """Get the upstream files from the given path, or from the first source that has them."""
    if given is not None:
        _fill_from_path(target, pin, given)
        return
    reasons = []
    for source in pin.sources:
        try:
            if isinstance(source, SdistSource):
                checkout.unpack(sdist.obtain(source, cache_dir()), target, source.prefix)
            else:
                _fill_from_git(target, pin, source)
        except SourceUnavailable as failure:
            reasons.append(f"  {failure.cause}")
            continue
        return
    raise ExpectedError("\n".join([f"No source has llama.cpp {pin.commit[:12]} now:", *reasons]), _FROM)


def _fill_from_path(target: Path, pin: Pin, given: Path) -> None:
    repository = _checkout_at(given)
    if repository is not None:
        if not repository.has(pin.tree):
            raise ExpectedError(
                f"The checkout {given} does not have the pinned commit {pin.commit}.",
                f"git -C '{given}' fetch origin {pin.commit}",
            )
        checkout.check_out(repository, pin.tree, target)
    elif given.is_dir():
        for landmark in LANDMARKS:
            if not (given / landmark).is_file():
                raise ExpectedError(f"The folder {given} is not llama.cpp: it has no {landmark}.", _FROM)
        console.step(f"Copying {given}.")
        try:
            shutil.copytree(given, target, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        except (OSError, shutil.Error) as failure:
            raise ExpectedError(f"The folder {given} cannot be copied: {failure}.", _FROM) from None
    else:
        checkout.unpack(given, target, None)


def _checkout_at(folder: Path) -> Repository | None:
    try:
        return Repository.open(folder)
    except ExpectedError:  # a plain folder, or a submodule taken out of its repository
        return None


def _fill_from_git(target: Path, pin: Pin, source: GitSource) -> None:
    with tempfile.TemporaryDirectory(prefix="qlutattn-") as folder:
        repository = Repository.create(Path(folder) / "fetched.git")
        try:
            with console.spinner(f"Fetching {pin.commit[:12]} from {source.url}."):
                repository.fetch(source.url, pin.commit)
        except GitError as failure:
            raise SourceUnavailable(f"{source.url} could not be fetched: {failure.cause}") from None
        checkout.check_out(repository, pin.commit, target)


def _make_repository(built: Path, pin: Pin) -> None:
    """Turn the files into a git work tree with one base commit, after verifying them."""
    repository, tree = checkout.add_all(built)
    if tree != pin.tree:
        raise ExpectedError(
            f"These are not the files of llama.cpp {pin.commit[:12]}: their git tree id is {tree}, not {pin.tree}.",
            _FROM,
        )
    message = f"llama.cpp {pin.commit}\n\nThe pristine upstream files, as vendor/llama.cpp.toml pins them.\n"
    checkout.commit(repository, tree, message)


def _put_in_place(built: Path, target: Path) -> None:
    if not target.exists():
        built.rename(target)
        return
    # verified above to contain nothing of the user's; `finish_interrupted` recovers from a kill here
    old = target.rename(target.with_name(f"{OLD}{_unique()}"))
    try:
        built.rename(target)
    except OSError:
        old.rename(target)
        raise
