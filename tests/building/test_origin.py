"""What a build is made from, as the tree has it and as the header says it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import edit, git
from msgspec import ValidationError

from qlutattn_patch.building.origin import HEADER, Origin, read_origin
from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system.records import typed
from qlutattn_patch.tree.worktree import apply, revert
from qlutattn_patch.workspace import Workspace


@pytest.fixture
def applied(project):
    generate(project.workspace, project.repository).write()
    apply(project.workspace, load_series(project.workspace.patches))
    return project


def test_of_an_applied_tree_everything_is_known(applied):
    series = load_series(applied.workspace.patches)
    found = read_origin(applied.workspace)
    assert (found.series, found.templates) == (series.digest, series.templates)
    assert found.upstream == git(applied.upstream, "rev-parse", "HEAD")
    git(applied.tree, "add", "--all")
    assert found.tree == git(applied.tree, "write-tree")


def test_edits_are_seen_and_undone(applied):
    clean = read_origin(applied.workspace)
    ids = {clean.tree}
    for path in ("ggml/src/ggml.c", "LICENSE"):
        before = (applied.tree / path).read_bytes()
        (applied.tree / path).write_bytes(before + b"\n")
        found = read_origin(applied.workspace)
        assert (found.tree or "").startswith(f"{clean.tree}+")
        assert clean.differences(found) == ["files of the tree"]
        ids.add(found.tree)
        (applied.tree / path).write_bytes(before)
    (applied.tree / "tools/prüf stand/main.c").unlink()
    ids.add(read_origin(applied.workspace).tree)
    assert len(ids) == 4


def test_of_a_pristine_tree_only_upstream_is_known(applied):
    revert(applied.workspace)
    tree = git(applied.upstream, "rev-parse", "HEAD^{tree}")
    assert read_origin(applied.workspace) == Origin(upstream=git(applied.upstream, "rev-parse", "HEAD"), tree=tree)


def test_of_a_users_checkout_it_is_its_own_commit(applied):
    edit(applied.upstream / "LICENSE", "MIT", "newer")
    git(applied.upstream, "commit", "--quiet", "--all", "-m", "newer")
    own = Workspace(applied.root, applied.upstream)
    apply(own, load_series(applied.workspace.patches))
    found = read_origin(own)
    assert found.upstream == git(applied.upstream, "rev-parse", "HEAD")
    assert found.series == read_origin(applied.workspace).series
    assert found.tree != read_origin(applied.workspace).tree


def test_of_no_checkout_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").touch()
    assert read_origin(Workspace(tmp_path / "root", tmp_path)) == Origin()


def test_the_header_is_written_when_it_changes_and_only_then(tmp_path: Path) -> None:
    Origin(templates="a", tree="b").write_header(tmp_path)
    text = (tmp_path / HEADER).read_text()
    assert '#define QLUTATTN_TEMPLATES "a"\n' in text
    assert "SERIES" not in text
    time = (tmp_path / HEADER).stat().st_ino
    Origin(templates="a", tree="b").write_header(tmp_path)
    assert (tmp_path / HEADER).stat().st_ino == time
    Origin(templates="c").write_header(tmp_path)
    assert '"c"' in (tmp_path / HEADER).read_text()


@pytest.mark.parametrize("raw", [None, [], "x", {"tree": 3}, {"other": "x"}])
def test_what_is_no_origin_is_refused(raw: object) -> None:
    assert typed({}, Origin) == Origin()
    with pytest.raises(ValidationError):
        typed(raw, Origin)
