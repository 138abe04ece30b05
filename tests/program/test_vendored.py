"""The real patch set on the real vendored llama.cpp."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers import ROOT, git, snapshot

from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system.git import Repository
from qlutattn_patch.tree.worktree import apply, revert
from qlutattn_patch.upstream.pin import load_pin
from qlutattn_patch.workspace import Workspace

pytestmark = pytest.mark.vendored

WORKSPACE = Workspace(ROOT, ROOT / "vendor" / "llama.cpp")


@pytest.fixture
def clone(tmp_path):
    """A clone of the vendored base."""
    git(tmp_path, "clone", "--quiet", "--shared", str(WORKSPACE.tree), "mein llama.cpp")
    return replace(WORKSPACE, tree=tmp_path / "mein llama.cpp")


def test_the_vendored_tree_is_the_pinned_one():
    assert Repository.open(WORKSPACE.tree).tree_id() == load_pin(WORKSPACE.pin_file).tree


def test_the_patches_are_as_generated():
    assert generate(WORKSPACE, Repository.open(WORKSPACE.tree)).drift() == []


def test_apply_gives_what_git_am_gives_and_revert_the_base(clone, tmp_path):
    pristine = snapshot(clone.tree)
    series = load_series(clone.patches)
    apply(clone, series)
    git(tmp_path, "clone", "--quiet", "--shared", str(WORKSPACE.tree), "am")
    git(tmp_path / "am", "am", "--quiet", *(str(clone.patches / patch.name) for patch in series.patches))
    assert snapshot(clone.tree) == snapshot(tmp_path / "am")
    assert git(tmp_path / "am", "rev-parse", "HEAD^{tree}") in (clone.tree / ".git/qlutattn/receipt.json").read_text()
    revert(clone)
    assert snapshot(clone.tree) == pristine


def test_each_prefix_of_the_series_applies(clone):
    series = load_series(clone.patches)
    for count in range(1, len(series.patches) + 1):
        assert apply(clone, replace(series, patches=series.patches[:count])) is True
    assert apply(clone, series) is False
