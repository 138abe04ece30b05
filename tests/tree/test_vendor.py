"""The pinned upstream is materialised from any source, verified, and put in place by one rename."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import (
    ROOT,
    UPSTREAM,
    Project,
    edit,
    git,
    make_tar,
    make_upstream,
    snapshot,
    together,
    upstream_tar,
    write_files,
    write_pin,
)
from releases import make_release, only_index

from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system import digests
from qlutattn_patch.system.errors import ExpectedError, UsageError
from qlutattn_patch.tree.vendor import vendor
from qlutattn_patch.tree.worktree import apply
from qlutattn_patch.workspace import cache_dir

FILES = {name: (text.encode(), name.endswith(".sh")) for name, text in UPSTREAM.items()}


@pytest.fixture
def empty(project: Project) -> Project:
    """A project that has no tree yet."""
    shutil.rmtree(project.tree)
    return project


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return only_index(tmp_path / "index", monkeypatch)


def pin_sdist(project: Project, sha256: str, more: str = "") -> None:
    source = f"""\
[[source]]
kind = "sdist"
package = "tiny-llama"
version = "1.0"
sha256 = "{sha256}"
prefix = "vendor/llama.cpp"
"""
    write_pin(project.root, project.upstream, source + more)


def is_right(project: Project) -> bool:
    beside = sorted(path.name for path in project.tree.parent.iterdir())
    return (
        snapshot(project.tree) == FILES
        and git(project.tree, "status", "--porcelain", "--ignored") == ""
        and git(project.tree, "rev-parse", "HEAD^{tree}") == git(project.upstream, "rev-parse", "HEAD^{tree}")
        and git(project.tree, "fsck", "--strict") == ""
        and beside == [".lock", "llama.cpp", "llama.cpp.toml"]
    )


def sources(project: Project, folder: Path) -> dict[str, Path]:
    shutil.copytree(project.upstream, folder / "plain", ignore=shutil.ignore_patterns(".git"))
    shutil.copytree(project.upstream, folder / "submodule", ignore=shutil.ignore_patterns(".git"))
    (folder / "submodule" / ".git").write_text("gitdir: ../nowhere\n")
    return {
        "checkout": project.upstream,
        "folder": folder / "plain",
        "submodule without its repository": folder / "submodule",
        "archive": upstream_tar(folder / "x.tar.gz"),
    }


def test_every_source_gives_the_same_commit(empty, tmp_path):
    commits = set()
    for name, path in sources(empty, tmp_path).items():
        assert vendor(empty.workspace, path) is True
        assert is_right(empty), name
        commits.add(git(empty.tree, "rev-parse", "HEAD"))
        shutil.rmtree(empty.tree)
    vendor(empty.workspace)  # from git
    assert is_right(empty)
    commits.add(git(empty.tree, "rev-parse", "HEAD"))
    assert len(commits) == 1


def test_the_commit_names_the_pin_and_has_a_fixed_identity(empty):
    vendor(empty.workspace)
    pinned = git(empty.upstream, "rev-parse", "HEAD")
    log = git(empty.tree, "log", "--format=%an <%ae> %cI %s")
    assert log == f"qlutattn <qlutattn@localhost> 2025-01-01T00:00:00+00:00 llama.cpp {pinned}"


def test_a_relative_path_is_taken_from_where_the_user_is(empty, tmp_path, monkeypatch):
    monkeypatch.chdir(empty.upstream.parent)
    vendor(empty.workspace, Path(empty.upstream.name))
    assert is_right(empty)


def test_a_second_time_there_is_nothing_to_do(empty):
    vendor(empty.workspace)
    times = {path: path.stat().st_mtime_ns for path in empty.tree.rglob("*") if path.is_file()}
    assert vendor(empty.workspace) is False
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_an_edited_checkout_gives_the_pinned_commit(empty):
    edit(empty.upstream / "LICENSE", "MIT", "mine")
    vendor(empty.workspace, empty.upstream)
    assert snapshot(empty.tree) == FILES


def test_a_checkout_without_the_commit_is_told(empty, tmp_path):
    other = make_upstream(tmp_path / "other", {"LICENSE": "other\n"})
    with pytest.raises(ExpectedError, match="does not have the pinned commit") as told:
        vendor(empty.workspace, other)
    assert "fetch origin" in (told.value.hint or "")
    assert not empty.tree.exists()


@pytest.mark.parametrize("name", ["folder", "archive"])
def test_other_files_are_told_and_leave_nothing(empty, tmp_path, name):
    write_files(tmp_path / "plain", UPSTREAM | {"LICENSE": "other\n"})
    path = tmp_path / "plain"
    if name == "archive":
        path = make_tar(tmp_path / "x.tgz", {f"x/{n}": t.encode() for n, t in UPSTREAM.items()})  # a mode is missing
    with pytest.raises(ExpectedError, match=r"These are not the files of llama\.cpp .* git tree id is"):
        vendor(empty.workspace, path)
    assert sorted(path.name for path in empty.tree.parent.iterdir()) == [".lock", "llama.cpp.toml"]


@pytest.mark.parametrize(("name", "said"), [("nothing", "There is no"), ("docs", r"is not llama\.cpp")])
def test_a_path_that_does_not_suit_is_told(empty, name, said):
    with pytest.raises(ExpectedError, match=said):
        vendor(empty.workspace, empty.root / name)


def test_a_tree_without_git_is_never_taken_for_right(project):
    shutil.rmtree(project.tree / ".git")
    before = snapshot(project.tree)
    with pytest.raises(ExpectedError, match="not the top of a git work tree"):
        vendor(project.workspace)
    assert snapshot(project.tree) == before


# --- source distributions


def test_a_source_distribution_is_downloaded_once_then_used_without_a_network(empty, index):
    archive = make_release(index, "1.0")
    pin_sdist(empty, digests.of_file(archive))
    assert vendor(empty.workspace) is True
    assert is_right(empty)
    archive.unlink()
    shutil.rmtree(empty.tree)
    vendor(empty.workspace)
    assert is_right(empty)
    assert [path.name for path in (cache_dir() / "archives").glob("[!.]*")] == [
        next((cache_dir() / "archives").glob("*.gz")).name
    ]


def test_a_damaged_cached_archive_is_fetched_again(empty, index, capfd):
    archive = make_release(index, "1.0")
    pin_sdist(empty, digests.of_file(archive))
    cached = cache_dir() / "archives" / f"{digests.of_file(archive)}.tar.gz"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(archive.read_bytes()[:-9])
    (cached.parent / ".download-killed").mkdir()
    vendor(empty.workspace)
    assert is_right(empty)
    assert cached.read_bytes() == archive.read_bytes()
    assert "is damaged" in capfd.readouterr().err
    assert not (cached.parent / ".download-killed").exists()


def test_a_wrong_sha256_is_told_and_nothing_is_kept(empty, index):
    make_release(index, "1.0")
    pin_sdist(empty, "0" * 64)
    with pytest.raises(ExpectedError, match=f"not the pinned {'0' * 64}"):
        vendor(empty.workspace)
    assert not empty.tree.exists()
    assert list((cache_dir() / "archives").glob("[!.]*")) == []


def test_no_network_and_no_cache_is_told_with_the_way_out(empty, index):
    git_source = '\n[[source]]\nkind = "git"\nurl = "file:///nowhere/llama.cpp.git"\n'
    pin_sdist(empty, "0" * 64, git_source)
    with pytest.raises(ExpectedError) as told:
        vendor(empty.workspace)
    lines = told.value.cause.splitlines()
    assert lines[0].startswith("No source has llama.cpp ")
    assert "pip could not download tiny-llama==1.0" in lines[1]
    assert "file:///nowhere/llama.cpp.git could not be fetched" in lines[2]
    assert "qlutattn vendor --help" in (told.value.hint or "")
    assert not empty.tree.exists()


def test_the_next_source_is_tried(empty, index):
    pin_sdist(empty, "0" * 64, f'\n[[source]]\nkind = "git"\nurl = "{empty.upstream.as_uri()}"\n')
    vendor(empty.workspace)
    assert is_right(empty)


# --- another pin


def move_pin(project: Project) -> None:
    edit(project.upstream / "LICENSE", "MIT", "MIT, newer")
    git(project.upstream, "commit", "--quiet", "--all", "-m", "newer")
    write_pin(project.root, project.upstream)


def vendored(project: Project) -> Project:
    shutil.rmtree(project.tree)
    vendor(project.workspace)
    generate(project.workspace, project.repository).write()
    return project


def test_a_clean_tree_follows_the_pin(project):
    vendored(project)
    move_pin(project)
    assert vendor(project.workspace) is True
    assert (project.tree / "LICENSE").read_text() == "MIT, newer\n"


def test_a_patched_tree_follows_the_pin(project):
    vendored(project)
    apply(project.workspace, load_series(project.workspace.patches))
    move_pin(project)
    vendor(project.workspace)
    assert snapshot(project.tree) == snapshot(project.upstream)


@pytest.mark.parametrize("work", ["edit", "new file", "commit", "stash", "branch"])
def test_a_tree_with_work_in_it_does_not(project, work):
    vendored(project)
    if work == "new file":
        (project.tree / "mine").write_text("mine\n")
    else:
        edit(project.tree / "LICENSE", "MIT", "mine")
    if work in ("commit", "branch"):
        git(project.tree, "checkout", "--quiet", "-b", "mine")
        git(project.tree, "commit", "--quiet", "--all", "-m", "mine")
    if work == "stash":
        git(project.tree, "stash")
    if work == "branch":
        git(project.tree, "checkout", "--quiet", "base")
    move_pin(project)
    before = snapshot(project.tree)
    with pytest.raises(ExpectedError, match="at another pin and has") as told:
        vendor(project.workspace)
    assert "move" in (told.value.hint or "")
    assert snapshot(project.tree) == before


# --- interrupted, and at once


def test_killed_at_any_time_the_same_command_gives_the_right_result(empty, tmp_path):
    """As in test_faults, but by the clock and with the git that it started left to run on."""
    many = {f"many/{number}.txt": f"{number}\n" * 50 for number in range(150)}
    big = make_upstream(tmp_path / "big", many)
    write_pin(empty.root, big)
    script = (
        "import sys; from pathlib import Path; from qlutattn_patch.tree.vendor import vendor;"
        "from qlutattn_patch.workspace import Workspace; root = Path(sys.argv[1]);"
        "vendor(Workspace(root, root / 'vendor' / 'llama.cpp'), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, str(empty.root), str(big)]
    started = time.monotonic()
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    whole = time.monotonic() - started
    for part in range(1, 6):
        shutil.rmtree(empty.tree, ignore_errors=True)
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        time.sleep(whole * part / 5.5)
        process.kill()
        process.wait()
        vendor(empty.workspace, big)
        assert snapshot(empty.tree) == snapshot(big)
        assert git(empty.tree, "status", "--porcelain") == ""


def test_two_at_once(empty):
    assert together(*[lambda: vendor(empty.workspace)] * 3) == [0, 0, 0]
    assert is_right(empty)


def test_a_source_that_does_not_exist_fails_also_where_nothing_is_to_be_done(project):
    with pytest.raises(UsageError, match="There is no file or folder /nowhere"):
        vendor(project.workspace, Path("/nowhere"))
