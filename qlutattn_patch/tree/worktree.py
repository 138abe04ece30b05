"""The llama.cpp work tree: apply and revert the patch set, and read the state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qlutattn_patch.patches.apply import PatchedTree, apply_series
from qlutattn_patch.patches.receipt import Receipt, read_receipt
from qlutattn_patch.patches.series import Series
from qlutattn_patch.system import process
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.git import Entry, Repository
from qlutattn_patch.system.lock import locked
from qlutattn_patch.system.transaction import Contents, Transaction
from qlutattn_patch.upstream.layout import LANDMARKS, check_is_llama_cpp
from qlutattn_patch.workspace import Workspace, project_transaction

_LISTED = 20
_BUILD_PATIENCE = 3600.0  # seconds
OLD = ".old-"  # a tree that is being replaced


@dataclass(frozen=True)
class Tree:
    """A work tree whose HEAD is the base, and the receipt of apply, if any."""

    repository: Repository
    top: Path
    commit: str
    base_id: str
    base: Mapping[str, Entry]
    receipt: Receipt | None

    @property
    def transaction(self) -> Transaction:
        return _transaction(self.repository, self.top)

    def blob_at_base(self, path: str) -> str | None:
        entry = self.base.get(path)
        return entry.blob if entry else None

    @cached_property
    def _file_states(self) -> tuple[Mapping[str, str], Mapping[str, str | None]]:
        """The files that differ from HEAD, and the current blob ids of these and of the receipt's files."""
        changed = self.repository.changed()
        known = self.receipt.files if self.receipt else {}
        return changed, self.repository.work_tree_hashes(sorted({*changed, *known}))

    def now(self) -> str:
        """The id of the files' tree: base or patched, plus a digest of any edits."""
        known = self.receipt.files if self.receipt else {}
        edits = {
            path: blob
            for path, blob in self._file_states[1].items()
            if blob != (known[path] if path in known else self.blob_at_base(path))
        }
        made = self.receipt.result if self.receipt else self.base_id
        return f"{made}+{hashlib.sha256(repr(sorted(edits.items())).encode()).hexdigest()[:12]}" if edits else made

    def foreign_changes(self) -> list[str]:
        """The files that differ both from HEAD and from the receipt: the user's changes."""
        known = self.receipt.files if self.receipt else {}
        changed, hashes = self._file_states
        found = []
        for path, blob in hashes.items():
            staged = changed.get(path, "  ")[0] not in " ?"
            ours = path in known and blob in (known[path], self.blob_at_base(path))
            if staged or not ours:
                found.append(path)
        return found

    def altered(self) -> list[str]:
        """The files that differ from the receipt."""
        known = self.receipt.files if self.receipt else {}
        return [path for path in known if self._file_states[1][path] != known[path]]


def open_tree(workspace: Workspace) -> Repository:
    """The tree's repository; an ExpectedError that says how to create it if there is none."""
    top = workspace.tree
    if not top.exists() and workspace.is_vendored:
        raise ExpectedError(f"There is no tree at {top}.", "qlutattn vendor")
    try:
        return Repository.open(top)
    except ExpectedError as failure:
        raise ExpectedError(failure.cause, _how_to_open(workspace)) from None


def _how_to_open(workspace: Workspace) -> str:
    """The command that turns the folder into a git checkout."""
    top = workspace.tree
    if workspace.is_vendored:
        return "move it away, then: qlutattn vendor"
    if all((top / landmark).is_file() for landmark in LANDMARKS) and not (top / ".git").exists():
        git = f"git -C '{top}'"
        return f"{git} init --quiet && {git} add --all && {git} commit --quiet -m upstream"
    return "name a git checkout of llama.cpp"


@contextmanager
def locked_tree(workspace: Workspace) -> Iterator[Tree]:
    """The locked tree, after finishing any interrupted command."""
    finish_interrupted(workspace)
    repository = open_tree(workspace)
    with locked(state_folder(repository) / "lock", str(workspace.tree)):
        _transaction(repository, workspace.tree).recover()
        yield read_tree(repository, workspace.tree)


@contextmanager
def at_rest(workspace: Workspace) -> Iterator[None]:
    """Wait until no build of the tree runs, and let no build begin: compilers read its files."""
    folder = state_folder(open_tree(workspace))
    with locked(folder / "build.lock", f"{workspace.tree} or its build", _BUILD_PATIENCE):
        yield


def finish_interrupted(workspace: Workspace) -> None:
    """Finish an interrupted rebase or export; restore a tree that vendor had moved away."""
    if workspace.is_clone and project_transaction(workspace).is_unfinished:
        with locked(workspace.vendor_lock, str(workspace.root)):
            project_transaction(workspace).recover()
    if workspace.is_vendored and not workspace.tree.exists() and _moved_away(workspace):
        with locked(workspace.vendor_lock, str(workspace.tree)):
            for old in _moved_away(workspace):
                if not workspace.tree.exists():
                    old.rename(workspace.tree)


def _moved_away(workspace: Workspace) -> list[Path]:
    return sorted(workspace.tree.parent.glob(f"{OLD}*"))


def read_tree(repository: Repository, top: Path) -> Tree:
    """Read the state of a tree."""
    commit = repository.commit_id()
    if commit is None:
        raise ExpectedError(f"{top} has no commit to take as the base.", "commit the upstream files first")
    base = repository.files(commit)
    check_is_llama_cpp(base, str(top))
    receipt = read_receipt(_receipt_file(repository))
    return Tree(repository, top, commit, repository.tree_id(commit), base, receipt)


def state_folder(repository: Repository) -> Path:
    """The folder of lock, journal and receipt."""
    return repository.git_dir / "qlutattn"


def apply(workspace: Workspace, series: Series) -> bool:
    """Apply the patch set to a clean tree, or update a patched one; returns whether anything changed."""
    with at_rest(workspace), locked_tree(workspace) as tree:
        _refuse_foreign_changes(tree)
        receipt = tree.receipt
        wanted = (series.digest, series.templates, tree.base_id)
        current = receipt is not None and (receipt.series, receipt.templates, receipt.base) == wanted
        if current and not tree.altered():
            return False
        write_patched(tree, series, apply_series(tree.repository, series, f"{tree.top} at {tree.commit[:12]}"))
        return True


def write_patched(tree: Tree, series: Series, patched: PatchedTree) -> None:
    """Write the files of the series, except unchanged ones, and the receipt."""
    files = {path: entry.blob if entry else None for path, entry in patched.files.items()}
    _change(tree, patched, Receipt(tree.commit, tree.base_id, series.digest, patched.tree, files, series.templates))


def revert(workspace: Workspace) -> bool:
    """Restore the files of the base; returns whether anything changed."""
    with at_rest(workspace), locked_tree(workspace) as tree:
        _refuse_foreign_changes(tree)
        if tree.receipt is None:
            return False
        _change(tree, PatchedTree(tree.base_id, {}, {}), None)
        return True


def _change(tree: Tree, patched: PatchedTree, made: Receipt | None) -> None:
    """Write the files of `patched`, and restore those that only the old receipt names."""
    before = tree.receipt.files if tree.receipt else {}
    wanted = {
        path: patched.files[path] if path in patched.files else tree.base.get(path)
        for path in sorted({*before, *patched.files})
    }
    now = tree.repository.work_tree_hashes(wanted)
    differing = {path: entry for path, entry in wanted.items() if now[path] != (entry.blob if entry else None)}
    for path, entry in differing.items():
        if path not in before and path not in tree.base and (tree.top / path).exists():
            raise ExpectedError(f"{tree.top / path} is in the way: a patch adds a file of that name.", "move it away")
        if entry and entry.mode not in ("100644", "100755"):
            raise ExpectedError(f"A patch makes {path} something other than a plain file.", "qlutattn generate")
    missing = [entry.blob for entry in differing.values() if entry and entry.blob not in patched.contents]
    contents = {**patched.contents, **tree.repository.blobs(missing)}
    changes = {
        path: Contents(contents[entry.blob], entry.mode == "100755") if entry else None
        for path, entry in differing.items()
    }
    tree.transaction.run(changes, made.encode() if made else None)


def _refuse_foreign_changes(tree: Tree) -> None:
    foreign = tree.foreign_changes()
    if foreign:
        shown = [f"  {path}" for path in foreign[:_LISTED]]
        more = [f"  and {len(foreign) - _LISTED} more"] if len(foreign) > _LISTED else []
        raise ExpectedError(
            "\n".join([f"{tree.top} has changes that qlutattn did not make:", *shown, *more]),
            f"stash them: {_stash(tree.top, foreign)}",
        )


def _stash(top: Path, files: Sequence[str]) -> str:
    """The command that stashes these files; of many, one that leaves naming them to the user."""
    git = ["git", "-C", str(top)]
    return process.shown(
        [*git, "stash", "push", "--include-untracked", "--", *files] if len(files) <= _LISTED else [*git, "status"]
    )


def _transaction(repository: Repository, top: Path) -> Transaction:
    return Transaction(top, state_folder(repository), _receipt_file(repository))


def _receipt_file(repository: Repository) -> Path:
    return state_folder(repository) / "receipt.json"
