"""status names the state of the tree and every link that is stale, and changes nothing."""

from __future__ import annotations

import shutil

import pytest
from helpers import edit, git, killed_at, snapshot, write_pin

from qlutattn_patch.generate import generate
from qlutattn_patch.series import load_series
from qlutattn_patch.status import read_status
from qlutattn_patch.tree import apply, revert


@pytest.fixture
def made(project):
    generate(project.workspace, project.repository).write()
    return project


@pytest.fixture
def applied(made):
    apply(made.workspace, load_series(made.workspace.patches))
    return made


def state(project):
    before = snapshot(project.root)
    status = read_status(project.workspace)
    after = snapshot(project.root)
    after.pop("vendor/llama.cpp/.git/qlutattn/lock", None)
    before.pop("vendor/llama.cpp/.git/qlutattn/lock", None)
    assert after == before
    return status.state, [item.link for item in status.stale]


def test_absent(made):
    shutil.rmtree(made.tree)
    assert state(made) == ("absent", [])


def test_clean(made):
    assert state(made) == ("clean", [])


def test_applied_and_reverted(applied):
    assert state(applied) == ("applied", [])
    revert(applied.workspace)
    assert state(applied) == ("clean", [])


def test_dirty(applied):
    edit(applied.tree / "ggml/src/ggml.c", "return 3", "return 4")
    (applied.tree / "mine").write_text("mine\n")
    status = read_status(applied.workspace)
    assert status.state == "dirty"
    assert status.foreign == ("ggml/src/ggml.c", "mine")
    assert [item.link for item in status.stale] == ["receipt -> files"]


def test_templates_are_newer_than_patches(applied):
    edit(applied.workspace.templates / "hooks" / "align.toml", "// third", "// the third")
    assert state(applied) == ("stale", ["templates -> patches"])
    assert read_status(applied.workspace).stale[0].why == "qlutattn generate would change align.patch"


def test_templates_that_are_wrong_are_a_stale_link(applied):
    edit(applied.workspace.templates / "hooks" / "align.toml", 'until = "Never."', "")
    status = read_status(applied.workspace)
    assert status.state == "stale"
    assert "'until' is missing" in status.stale[0].why


def test_patches_are_newer_than_the_tree(applied):
    edit(applied.workspace.templates / "hooks" / "align.toml", "// third", "// the third")
    generate(applied.workspace, applied.repository).write()
    assert state(applied) == ("stale", ["patches -> tree"])


def test_patches_are_missing(applied):
    (applied.workspace.patches / "types.patch").unlink()
    assert state(applied) == ("stale", ["templates -> patches"])


def test_the_pin_has_moved(applied):
    edit(applied.upstream / "LICENSE", "MIT", "newer")
    git(applied.upstream, "commit", "--quiet", "--all", "-m", "newer")
    write_pin(applied.root, applied.upstream)
    assert state(applied) == ("stale", ["pin -> tree"])
    revert(applied.workspace)
    assert state(applied) == ("stale", ["pin -> tree"])


def test_head_has_moved(applied):
    edit(applied.tree / "LICENSE", "MIT", "newer")
    git(applied.tree, "commit", "--quiet", "LICENSE", "-m", "newer")
    assert state(applied) == ("stale", ["pin -> tree", "pin -> tree"])


def test_a_file_of_the_patches_is_gone(applied):
    git(applied.tree, "checkout", "--", "ggml/src/ggml.c")
    (applied.tree / "tools/prüf stand/main.c").unlink()
    assert state(applied) == ("stale", ["receipt -> files"])
    assert read_status(applied.workspace).stale[0].why == (
        "not as they were applied: ggml/src/ggml.c, tools/prüf stand/main.c"
    )


def test_an_interrupted_apply(made):
    series = load_series(made.workspace.patches)
    journal = made.tree / ".git/qlutattn/txn/journal.json"
    for count in range(1, 300, 4):
        if not killed_at(count, made.tree, lambda: apply(made.workspace, series)) or journal.exists():
            break
    assert journal.exists()
    assert state(made) == ("stale", ["receipt -> files"])
    assert journal.exists()
    apply(made.workspace, series)
    assert state(made) == ("applied", [])
