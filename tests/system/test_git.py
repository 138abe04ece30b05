"""git runs on exactly the repository that is meant, and leaves it as it was."""

from __future__ import annotations

import os
import subprocess

import pytest
from helpers import UPSTREAM, git, make_upstream, snapshot

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.git import Entry, GitError, Repository


@pytest.fixture
def upstream(tmp_path):
    return make_upstream(tmp_path / "ein Baum")


def test_reads_a_commit(upstream):
    repository = Repository.open(upstream)
    files = repository.files("HEAD")
    assert set(files) == set(UPSTREAM)
    assert files["scripts/run me.sh"].mode == "100755"
    contents = repository.blobs(entry.blob for entry in files.values())
    assert {path: contents[entry.blob].decode() for path, entry in files.items()} == UPSTREAM


def test_a_folder_in_another_repository_is_not_that_repository(upstream):
    with pytest.raises(ExpectedError, match=r"has no \.git"):
        Repository.open(upstream / "ggml")


def test_a_broken_git_folder_is_never_the_outer_repository(upstream):
    inner = upstream / "inner"
    (inner / ".git").mkdir(parents=True)
    (inner / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    with pytest.raises(GitError):
        Repository.open(inner).tree_id()


def test_the_callers_git_variables_do_not_redirect(upstream, tmp_path, monkeypatch):
    other = make_upstream(tmp_path / "other", {"LICENSE": "other\n"})
    for name, value in {
        "GIT_DIR": str(other / ".git"),
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": str(tmp_path / "index"),
        "GIT_OBJECT_DIRECTORY": str(tmp_path / "objects"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.bare",
        "GIT_CONFIG_VALUE_0": "true",
    }.items():
        monkeypatch.setenv(name, value)
    repository = Repository.open(upstream)
    assert repository.tree_id() == git(upstream, "rev-parse", "HEAD^{tree}")
    assert repository.changed() == {}
    assert os.environ["GIT_DIR"] == str(other / ".git")


def test_a_linked_work_tree_is_opened(upstream, tmp_path):
    git(upstream, "worktree", "add", "--quiet", "-b", "other", str(tmp_path / "zweiter Baum"))
    linked = Repository.open(tmp_path / "zweiter Baum")
    assert linked.tree_id() == Repository.open(upstream).tree_id()
    assert linked.changed() == {}
    with linked.scratch() as scratch:
        assert scratch.files(linked.tree_id()).keys() == UPSTREAM.keys()


def test_changed_files_are_named(upstream):
    (upstream / "LICENSE").write_text("mine\n")
    (upstream / "new ü.txt").write_text("mine\n")
    (upstream / "ignored.o").write_text("mine\n")
    (upstream / "docs/Größe und Maß.md").unlink()
    (upstream / "CMakeLists.txt").write_text("mine\n")
    git(upstream, "add", "CMakeLists.txt")
    changed = Repository.open(upstream).changed()
    assert changed == {
        "CMakeLists.txt": "M ",
        "LICENSE": " M",
        "docs/Größe und Maß.md": " D",
        "new ü.txt": "??",
    }


def test_a_scratch_repository_leaves_nothing_behind(upstream):
    repository = Repository.open(upstream)
    before = {path: path.stat().st_mtime_ns for path in (upstream / ".git").rglob("*")}
    with repository.scratch() as scratch:
        scratch.read_tree(repository.tree_id())
        scratch.update_index({"added ü": Entry("100644", *scratch.store([b"added\n"]))})
        tree = scratch.write_tree()
        assert scratch.differences(repository.tree_id(), tree).keys() == {"added ü"}
        folder = scratch.git_dir
    assert not folder.exists()
    assert {path: path.stat().st_mtime_ns for path in (upstream / ".git").rglob("*")} == before


def test_patches_do_not_depend_on_the_users_settings(upstream, tmp_path, monkeypatch):
    def made() -> bytes:
        repository = Repository.open(upstream)
        with repository.scratch() as scratch:
            scratch.read_tree(repository.tree_id())
            scratch.update_index({"LICENSE": Entry("100644", *scratch.store(["MIT ü\n".encode()]))})
            parent = scratch.commit_tree(repository.tree_id(), "base")
            return scratch.format_patch(scratch.commit_tree(scratch.write_tree(), "a subject ü\n\nbody\n", parent))

    first = made()
    settings = (
        "[format]\n signOff = true\n subjectPrefix = X\n"
        "[diff]\n noprefix = true\n context = 9\n mnemonicPrefix = true\n"
        "[user]\n name = Somebody\n[core]\n abbrev = 5\n autocrlf = true\n"
    )
    (tmp_path / ".gitconfig").write_text(settings)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    git(upstream, "config", "diff.noprefix", "true")
    assert made() == first
    assert first.startswith(b"From 0000000000000000000000000000000000000000 ")


def test_hashes_are_those_of_git(upstream):
    found = Repository.open(upstream).work_tree_hashes(["LICENSE", "none", "ggml", "docs/Größe und Maß.md"])
    assert found["LICENSE"] == git(upstream, "rev-parse", "HEAD:LICENSE")
    assert found["docs/Größe und Maß.md"] == git(upstream, "rev-parse", "HEAD:docs/Größe und Maß.md")
    assert (found["none"], found["ggml"]) == (None, None)


def test_a_repository_of_sha256_works(tmp_path):
    folder = tmp_path / "sha256"
    folder.mkdir()
    subprocess.run(["git", "init", "--quiet", "--object-format=sha256", str(folder)], check=True)
    (folder / "a").write_text("a\n")
    git(folder, "add", "a")
    git(folder, "commit", "--quiet", "-m", "a")
    repository = Repository.open(folder)
    with repository.scratch() as scratch:
        scratch.read_tree(repository.tree_id())
        assert scratch.write_tree() == repository.tree_id()


def test_a_failing_command_says_why(upstream):
    with pytest.raises(GitError, match="git ls-tree failed: fatal: Not a valid object name none"):
        Repository.open(upstream).files("none")


def test_a_missing_git_is_told(upstream, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ExpectedError, match="'git' is not on PATH"):
        Repository.open(upstream).tree_id()


def test_a_work_tree_is_not_touched_by_reading(upstream):
    before = snapshot(upstream)
    repository = Repository.open(upstream)
    repository.changed()
    repository.files("HEAD")
    assert snapshot(upstream) == before
