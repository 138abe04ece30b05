"""The first bad one between a good and a bad llama.cpp is found, in few steps."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from helpers import Project, edit, git, make_upstream
from releases import copy_from, make_release, only_index, pin_release

from qlutattn_patch.commands.main import run
from qlutattn_patch.workspace import Workspace

MOVED = {"CMakeLists.txt": "project(llama.cpp)\nadd_subdirectory(ggml EXCLUDE_FROM_ALL)\n"}


@pytest.fixture
def here(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project pinned to the first of nine releases, of which the last three move an anchor."""
    index = copy_from(only_index(tmp_path / "index", monkeypatch), monkeypatch)
    pin_release(project, make_release(index, "0.1"), "0.1")
    for number in range(2, 10):
        make_release(index, f"0.{number}", {"LICENSE": f"MIT {number}\n"} | (MOVED if number > 6 else {}))
    find = Workspace.find.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: find(cls, tree, project.root)))
    return project


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with ten commits, of which the fifth moves an anchor; one of them is a merge."""
    clone = make_upstream(tmp_path / "klön")
    for number in range(1, 10):
        edit(clone / "LICENSE", "MIT", "MIT ")
        if number == 4:
            edit(clone / "CMakeLists.txt", "add_subdirectory(ggml)", "nothing()")
        git(clone, "commit", "--quiet", "--all", "-m", f"step {number}")
        if number == 2:
            git(clone, "checkout", "--quiet", "-b", "side", "HEAD~1")
            (clone / "side").write_text("side\n")
            git(clone, "add", "side")
            git(clone, "commit", "--quiet", "-m", "side")
            git(clone, "checkout", "--quiet", "-")
            git(clone, "merge", "--quiet", "--no-edit", "side")
    return clone


def bisected(capfd: pytest.CaptureFixture[str], *argv: str) -> dict[str, object]:
    capfd.readouterr()
    assert run(["bisect", "--until", "applied", "--json", *argv]) == 0
    found: dict[str, object] = json.loads(capfd.readouterr().out)
    return found


def test_the_first_bad_release(here, capfd):
    found = bisected(capfd, "0.1", "0.9")
    assert (found["last_good"], found["first_bad"], found["stage"]) == ("0.6", "0.7", "anchors")
    assert "add_subdirectory(ggml EXCLUDE_FROM_ALL)" in str(found["detail"])
    assert len(found["tried"]) <= 5


def test_neighbours_need_no_more_than_two(here, capfd):
    found = bisected(capfd, "0.6", "0.7")
    assert (found["first_bad"], len(found["tried"])) == ("0.7", 2)


def test_the_first_bad_commit(here, clone, capfd):
    found = bisected(capfd, "--clone", str(clone), git(clone, "rev-list", "--max-parents=0", "HEAD"), "HEAD")
    assert git(clone, "log", "-1", "--format=%s", str(found["first_bad"])) == "step 4"
    assert git(clone, "status", "--porcelain") == ""


def test_the_documented_command(project, tmp_path, monkeypatch, capfd):
    """docs/upstreams.md's, on small releases of the same names."""
    index = copy_from(only_index(tmp_path / "index", monkeypatch), monkeypatch)
    pin_release(project, make_release(index, "0.3.36", MOVED), "0.3.36")
    for number in range(29, 36):
        make_release(index, f"0.3.{number}", {"LICENSE": f"MIT {number}\n"} | (MOVED if number > 33 else {}))
    find = Workspace.find.__func__
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: find(cls, tree, project.root)))
    assert run(shlex.split("qlutattn bisect 0.3.29 0.3.36 --until applied")[1:]) == 0
    assert "first bad: 0.3.34 (last good: 0.3.33)\n" in capfd.readouterr().out


def test_it_is_told_in_words(here, capfd):
    assert run(["bisect", "--until", "applied", "0.5", "0.8"]) == 0
    out = capfd.readouterr().out
    assert "first bad: 0.7 (last good: 0.6)\n" in out
    assert "FAILED 0.7, anchors: 1 hook does not fit" in out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["0.8", "0.9"], "0.8 is not good: anchors: 1 hook does not fit"),
        (["0.1", "0.3"], "0.3 is not bad: everything passes until applied"),
        (["0.1", "0.1"], "0.1 is not bad"),
        (["0.9", "0.1"], "0.1 is older than 0.9"),
        (["0.1", "0.12"], "There is no release 0.12 of tiny-llama"),
        (["v1", "0.3"], "commits need a clone"),
    ],
)
def test_ends_that_do_not_suit_are_told(here, capfd, argv, said):
    assert run(["bisect", "--until", "applied", *argv]) == 3
    assert said in capfd.readouterr().err


def test_commits_that_do_not_follow_each_other_are_told(here, clone, capfd):
    for argv, said in ((["HEAD", "HEAD~2"], "does not descend from"), (["HEAD", "v7"], "has no commit 'v7'")):
        assert run(["bisect", "--until", "applied", "--clone", str(clone), *argv]) == 3
        assert said in capfd.readouterr().err
