"""Where the project is: a clone, or what an installed package carries."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import ROOT, Project, git, snapshot

from qlutattn_patch import workspace as module
from qlutattn_patch.commands import main
from qlutattn_patch.patches.generate import generate
from qlutattn_patch.workspace import Workspace


@pytest.fixture
def share(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small project as an installed package carries it, with the current folder outside of any clone."""
    generate(project.workspace, project.repository).write()
    share = tmp_path / "lib" / "qlutattn_patch" / "share"
    for name in ("templates", "patches"):
        shutil.copytree(project.root / name, share / name)
    (share / "vendor").mkdir()
    shutil.copy(project.workspace.pin_file, share / "vendor")
    monkeypatch.setattr(module, "_SHARE", share)
    monkeypatch.setattr(module, "_data_dir", lambda: tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return share


def test_a_package_in_no_clone_has_its_own_copy(share: Path, tmp_path: Path) -> None:
    found = Workspace.find()
    assert (found.root, found.tree) == (share, tmp_path / "data" / "vendor" / "llama.cpp")
    assert found.build_dir("native") == tmp_path / "data" / "build" / "native"
    assert found.is_vendored
    assert not found.is_clone


def test_the_clone_around_the_current_folder_comes_first(
    share: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root / "docs")
    found = Workspace.find()
    assert (found.root, found.tree, found.home) == (project.root, project.tree, project.root)
    assert found.is_clone


def test_a_checkout_is_patched_and_reverted_from_a_package(
    share: Path, project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    carried, pristine = snapshot(share), snapshot(project.upstream)
    tree = ["--tree", str(project.upstream)]
    assert main.run(["apply", *tree]) == 0
    assert main.run(["status", *tree]) == 0
    assert f"{project.upstream}: applied\n" in capsys.readouterr().out
    assert (project.upstream / "tools" / "prüf stand" / "main.c").is_file()
    assert Workspace.find(project.upstream).build_dir("native") == project.upstream / "build-qlutattn-native"
    assert main.run(["revert", *tree]) == 0
    assert snapshot(project.upstream) == pristine
    assert snapshot(share) == carried
    assert not (tmp_path / "data").exists()


def test_the_vendored_tree_of_a_package_is_in_the_user_s_folder(
    share: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    carried = snapshot(share)
    for argv in (["vendor"], ["apply"], ["status"], ["types"], ["revert"], ["vendor"]):
        assert main.run(argv) == 0
    assert f"{tmp_path / 'data' / 'vendor' / 'llama.cpp'}: applied\n" in capsys.readouterr().out
    assert snapshot(share) == carried
    assert git(tmp_path / "data" / "vendor" / "llama.cpp", "status", "--porcelain") == ""


def test_the_next_command_of_a_package_is_one_that_it_has(
    share: Path, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    main.run(["vendor"])
    (Workspace.find().tree / "LICENSE").write_text("mine\n", encoding="utf-8")
    assert main.run(["status"]) == 0
    assert "next: commit, stash or move your changes away" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["generate"], ["generate", "--check"], ["export"], ["rebase", "1.0"]])
def test_what_changes_the_project_needs_a_clone(
    share: Path, tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(argv) == 3
    said = capsys.readouterr().err
    assert f"{tmp_path / 'elsewhere'} is not in one" in said
    assert f"next: clone qlutattn, then in the clone: qlutattn {argv[0]}" in said
    assert not (tmp_path / "data").exists()


def test_a_folder_without_git_becomes_a_checkout_by_the_next_command(
    share: Path, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project.upstream / ".git")
    assert main.run(["apply", "--tree", str(project.upstream)]) == 3
    said = capsys.readouterr().err
    assert f"next: git -C '{project.upstream}' init --quiet && " in said
    for command in said.partition("next: ")[2].replace(f"git -C '{project.upstream}' ", "").strip().split(" && "):
        git(project.upstream, *command.split())
    assert main.run(["apply", "--tree", str(project.upstream)]) == 0


def test_no_clone_and_no_copy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARE", tmp_path / "share")
    monkeypatch.chdir(tmp_path)
    assert main.run(["apply"]) == 3


def test_the_project_is_that_of_the_current_folder(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the program that runs is part of another clone."""
    monkeypatch.chdir(project.root / "docs")
    assert Workspace.find().root == project.root
    monkeypatch.chdir(project.root.parent)
    assert Workspace.find().root == ROOT


@pytest.mark.parametrize("is_same", [True, False])
def test_a_project_with_another_program_is_told(
    is_same: bool, project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "qlutattn_patch", project.root / "qlutattn_patch")
    if not is_same:
        (project.root / "qlutattn_patch" / "__init__.py").write_text('__version__ = "9.9"\n', encoding="utf-8")
    monkeypatch.chdir(project.root)
    assert main.run(["types"]) == 0
    said = capsys.readouterr().err
    assert (f"the project in {project.root} has other code than the qlutattn that runs" in said) is not is_same
