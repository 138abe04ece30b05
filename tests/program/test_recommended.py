"""What status recommends is not refused, and it can be asked where nothing can be written."""

from __future__ import annotations

import errno
import shutil

import pytest
from filelock import FileLock
from helpers import edit, git, write_pin

from qlutattn_patch.commands import main
from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.tree.worktree import apply, revert
from qlutattn_patch.workflow import status as status_module
from qlutattn_patch.workflow.status import read_status
from qlutattn_patch.workspace import Workspace

BUILD = "tree -> native: align_attn"
AGAIN = {BUILD: "qlutattn build --preset native --target align_attn"}


def nexts(project):
    return {item.link: item.next for item in read_status(project.workspace).stale}


def test_apply_is_not_recommended_where_it_would_refuse(built):
    edit(built.workspace.templates / "hooks" / "align.toml", "// third", "// the third")
    generate(built.workspace, built.repository).write()
    assert nexts(built)["patches -> tree"] == "qlutattn apply"
    edit(built.tree / "LICENSE", "MIT", "mine")
    assert nexts(built)["patches -> tree"] == "save your changes (LICENSE), then: qlutattn apply"
    with pytest.raises(ExpectedError, match="has changes that qlutattn did not make"):
        apply(built.workspace, load_series(built.workspace.patches))


def test_without_patches_they_are_generated_first(made, capsys, monkeypatch):
    shutil.rmtree(made.workspace.patches)
    find = Workspace.find.__func__
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: find(cls, tree, made.root)))
    assert main.run(["status"]) == 0
    said = capsys.readouterr().out
    assert "next: qlutattn apply" not in said
    for command in [line.partition("next: ")[2].split()[1:] for line in said.splitlines() if "next: " in line]:
        assert main.run(command) == 0, command


def test_without_a_tree_it_comes_first(built):
    edit(built.workspace.templates / "hooks" / "align.toml", "// third", "// the third")
    shutil.rmtree(built.tree)
    found = nexts(built)
    assert found["templates -> patches"] == "qlutattn vendor && qlutattn generate"
    assert found[BUILD].startswith("qlutattn vendor && qlutattn apply && qlutattn build ")


def test_a_tree_with_commits_of_its_own_is_moved_away_first(built):
    git(built.tree, "add", "--all")
    git(built.tree, "commit", "--quiet", "-m", "mine")
    write_pin(built.root, built.upstream)
    assert nexts(built)["pin -> tree"].startswith(f"save your work, move {built.tree} away, then: qlutattn vendor")


def test_templates_that_generate_would_refuse_are_mended_first(built):
    edit(built.workspace.templates / "hooks" / "align.toml", 'until = "Never."', "")
    assert nexts(built)["templates -> patches"].endswith("; then: qlutattn generate")


def test_levels_that_numpy_does_not_have_are_named(built):
    edit(built.workspace.templates / "formats.toml", "levels = [-120, -36, 36, 120]", "levels = [-120, -24, 24, 120]")
    [item] = [item for item in read_status(built.workspace).stale if item.link == "templates -> patches"]
    assert "numpy's copy, which must change too" in item.why
    assert item.next.startswith("change CODES in ")


def test_a_preset_without_its_compiler_asks_for_it_first(built, monkeypatch):
    def missing(preset):
        raise ExpectedError("There is no clang.", "sudo apt-get install -y clang")

    monkeypatch.setattr(status_module.toolchain, "find_compilers", missing)
    (built.workspace.build_dir("native") / "bin" / "align_attn").write_bytes(b"by ninja alone")
    assert nexts(built)[BUILD] == f"sudo apt-get install -y clang; then: {AGAIN[BUILD]}"


def test_the_state_of_a_tree_that_cannot_be_written_is_read(built, monkeypatch):
    (built.tree / ".git" / "qlutattn" / "lock").unlink()

    def refuse(self, *_, **__):
        raise PermissionError(errno.EROFS, "Read-only file system", self.lock_file)

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert read_status(built.workspace).state == "applied"
    with pytest.raises(PermissionError):
        revert(built.workspace)
