"""The project moves to another release wholly or not at all."""

from __future__ import annotations

import shutil

import fake_tools
import pytest
from helpers import Project, git, make_upstream, snapshot
from releases import make_release
from upstream_projects import NEWER, built, put_align, release

from qlutattn_patch.commands.main import run
from qlutattn_patch.system.errors import CheckFailed, ExpectedError
from qlutattn_patch.upstream.pin import GitSource, SdistSource, load_pin
from qlutattn_patch.workflow.rebase import rebase
from qlutattn_patch.workflow.status import read_status
from qlutattn_patch.workspace import cache_dir


@pytest.fixture
def here(pinned_project: Project) -> Project:
    return pinned_project


def test_a_release_that_passes_becomes_the_pin(here, tools, capfd):
    old = snapshot(here.workspace.patches)
    assert run(["rebase", "0.2"]) == 0
    said = capfd.readouterr()
    assert "changed  vendor/llama.cpp.toml\n" in said.out
    assert "changed  patches/align.patch\n" in said.out
    assert "The project is now at 0.2 (llama.cpp abcdef012, 1 cases of align_attn)" in said.err
    assert "the pin has no git source" in said.err
    pin = load_pin(here.workspace.pin_file)
    assert pin.commit == "abcdef012"
    (source,) = pin.sources
    assert isinstance(source, SdistSource)
    assert source.version == "0.2"
    assert here.workspace.pin_file.read_text().startswith("# The pin, in words.\nschema = 1\n")
    assert git(here.tree, "rev-parse", "HEAD^{tree}") == pin.tree
    assert (here.tree / "LICENSE").read_text() == "MIT, newer\n"
    assert (here.tree / "tools/align-attn/main.c").exists()
    assert snapshot(here.workspace.patches) != old
    assert read_status(here.workspace).state == "applied"
    assert run(["generate", "--check"]) == 0
    assert built(tools) == [["align_attn"]]


def test_a_clone_makes_the_pin_whole(here, tmp_path):
    clone = make_upstream(tmp_path / "clone")
    commit = git(clone, "rev-parse", "HEAD")
    index = tmp_path / "index"
    make_release(index, "0.4", NEWER, f"## [0.4]\n\n- update to llama.cpp@{commit[:9]}\n")
    put_align(here, "0.4")
    rebase(here.workspace, "0.4", cache_dir(), None, clone)
    pin = load_pin(here.workspace.pin_file)
    assert pin.commit == commit
    assert GitSource("https://example.org/llama.cpp.git") in pin.sources


def test_every_failure_is_told_and_nothing_changes(here, capfd):
    before = snapshot(here.root)
    assert run(["rebase", "0.3"]) == 1
    said = capfd.readouterr().err
    assert "0.3 does not pass (anchors); nothing was changed." in said
    assert "3 hooks do not fit" in said
    assert "near it, line 2: add_subdirectory(ggml EXCLUDE_FROM_ALL)" in said
    assert snapshot(here.root) == before


@pytest.mark.parametrize("what", ["build", "align"])
def test_a_release_that_does_not_build_or_align_changes_nothing(here, tools, what):
    if what == "build":
        fake_tools.behaves(tools, "cmake--build", 1, "x.c:1:1: error: no\n")
    else:
        shutil.rmtree(release(here, "0.2").folder / "build-qlutattn-native")
    before = snapshot(here.root)
    with pytest.raises(CheckFailed, match="nothing was changed"):
        rebase(here.workspace, "0.2", cache_dir(), None, None)
    assert snapshot(here.root) == before


def test_work_in_the_tree_is_not_lost(here):
    (here.tree / "LICENSE").write_text("mine\n")
    before = snapshot(here.root)
    with pytest.raises(ExpectedError, match="has changes"):
        rebase(here.workspace, "0.2", cache_dir(), None, None)
    assert snapshot(here.root) == before


def test_a_release_that_names_no_commit_is_told(here, tmp_path):
    make_release(tmp_path / "index", "0.5", NEWER)
    put_align(here, "0.5")
    with pytest.raises(ExpectedError, match=r"does not name its commit of llama\.cpp"):
        rebase(here.workspace, "0.5", cache_dir(), None, None)
