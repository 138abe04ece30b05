"""A llama.cpp of any origin has the same work tree for the same files."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import UPSTREAM, Project, git, make_upstream, snapshot, together
from releases import make_release, only_index, pin_release

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.upstream import releases
from qlutattn_patch.upstream.pin import Pin, load_pin
from qlutattn_patch.workspace import cache_dir

FILES = {name: (text.encode(), name.endswith(".sh")) for name, text in UPSTREAM.items()}


@pytest.fixture
def pin(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pin:
    index = only_index(tmp_path / "index", monkeypatch)
    make_release(index, "0.9")
    pin_release(project, make_release(index, "0.10"), "0.10")
    return load_pin(project.workspace.pin_file)


@pytest.mark.parametrize(
    ("name", "is_one"), [("0.3.36", True), ("1.0rc1", True), ("b4567", False), ("0c1e57098", False), ("12", False)]
)
def test_versions_and_commits_are_told_apart(name, is_one):
    assert releases.is_version(name) is is_one


def test_releases_are_listed_newest_first_as_versions_are_ordered(pin):
    assert releases.latest(pin, 8) == ["0.10", "0.9"]
    assert releases.latest(pin, 1) == ["0.10"]
    assert releases.between(pin, "0.9", "0.10") == ["0.9", "0.10"]


def test_a_release_and_a_commit_of_the_same_files_share_a_work_tree(pin, tmp_path):
    release = releases.release(pin, "0.9", cache_dir())
    clone = make_upstream(tmp_path / "klön")
    commit = releases.commit(clone, "HEAD", cache_dir())
    assert commit.folder == release.folder
    assert commit.tree == release.tree == git(clone, "rev-parse", "HEAD^{tree}")
    assert snapshot(release.folder) == FILES
    assert git(release.folder, "status", "--porcelain", "--ignored") == ""
    assert git(release.folder, "fsck", "--strict") == ""
    assert not list((cache_dir() / "upstreams").glob(".new-*"))


def test_several_at_once(pin):
    assert together(*[lambda: releases.release(pin, "0.9", cache_dir())] * 3) == [0, 0, 0]
    assert snapshot(releases.release(pin, "0.9", cache_dir()).folder) == FILES


def test_a_damaged_record_is_made_again(pin):
    folder = releases.release(pin, "0.9", cache_dir()).folder
    (record,) = (cache_dir() / "upstreams" / "releases").glob("*.json")
    record.write_text("{")
    assert releases.release(pin, "0.9", cache_dir()).folder == folder


@pytest.mark.parametrize(
    ("changelog", "found"),
    [
        ("## [0.9]\n- llama.cpp@1234567\n- llama.cpp@7654321\n## [0.8]\n- llama.cpp@aaaaaaa\n", "1234567"),
        ("## [1.0]\n- llama.cpp@1234567\n## [0.9]\n- nothing\n## [0.8]\n- llama.cpp@aaaaaaa\n", "aaaaaaa"),
        ("## [0.8]\n- llama.cpp@aaaaaaa\n", None),
        ("", None),
    ],
)
def test_the_changelog_names_the_commit(pin, tmp_path, changelog, found):
    make_release(tmp_path / "index", "0.9", {"LICENSE": "older\n"}, changelog)
    assert releases.release(pin, "0.9", cache_dir()).commit == found


def test_a_pin_without_releases_is_told(pin):
    with pytest.raises(ExpectedError, match="names no source distribution"):
        releases.latest(Pin(pin.commit, pin.tree, ()), 8)
