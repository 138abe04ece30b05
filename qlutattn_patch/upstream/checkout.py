"""Turn the files of an upstream into a git work tree with one base commit, reproducibly."""

from __future__ import annotations

from pathlib import Path

from qlutattn_patch.system import console
from qlutattn_patch.system.files import write
from qlutattn_patch.system.git import Repository
from qlutattn_patch.upstream import archive
from qlutattn_patch.upstream.layout import LANDMARKS


def unpack(path: Path, target: Path, prefix: str | None) -> None:
    """Write the llama.cpp in a tar archive below `target`."""
    console.step(f"Unpacking {path}.")
    archive.unpack(path, target, prefix, LANDMARKS, _report)


def _report(done: int, total: int) -> None:
    if done == total or done % 1000 == 0:
        console.step(f"{done} of {total} files unpacked.")


def check_out(repository: Repository, revision: str, target: Path) -> None:
    """Write the files of a commit or tree below `target`, byte for byte."""
    console.step(f"Taking {revision[:12]} from {repository.work_tree or repository.git_dir}.")
    entries = repository.files(revision)
    blobs = repository.blobs(entry.blob for entry in entries.values())
    for path, entry in entries.items():
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, blobs[entry.blob])
        file.chmod(0o755 if entry.mode == "100755" else 0o644)


def add_all(folder: Path) -> tuple[Repository, str]:
    """Create a repository of the files in a folder, and return it with their git tree id."""
    repository = Repository.create(folder / ".git", folder)
    repository.keep_settings()
    console.step("Verifying the files.")
    repository.run("add", "--all", "--force", ".")
    return repository, repository.write_tree()


def commit(repository: Repository, tree: str, message: str) -> None:
    """Create the base commit."""
    repository.run("update-ref", "refs/heads/base", repository.commit_tree(tree, message))
