"""One command at a time; a dead one holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, edit, git, snapshot, together, write_pin

from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.lock import locked
from qlutattn_patch.tree.worktree import apply


def test_the_second_waits_for_the_first(tmp_path):
    def work():
        with locked(tmp_path / "lock", "the tree"):
            assert not (tmp_path / "inside").exists()
            (tmp_path / "inside").touch()
            (tmp_path / "inside").unlink()

    assert together(*[work] * 5) == [0] * 5


def test_the_second_refuses_in_words_in_the_end(tmp_path, capsys):
    def second():
        with pytest.raises(ExpectedError, match="Another qlutattn command is still working on the tree") as told:  # noqa: SIM117
            with locked(tmp_path / "lock", "the tree", patience=0.1):
                pass
        assert told.value.hint
        assert "waiting up to 0.1 s" in capsys.readouterr().err

    with locked(tmp_path / "lock", "the tree"):
        assert together(second) == [0]


def test_a_killed_command_holds_no_lock(tmp_path):
    child = os.fork()
    if child == 0:
        with locked(tmp_path / "lock", "the tree"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with locked(tmp_path / "lock", "the tree", patience=0):
        pass


HOLD = """
import sys, time
from pathlib import Path
from qlutattn_patch.tree.worktree import locked_tree
from qlutattn_patch.workspace import Workspace
root = Path(sys.argv[1])
with locked_tree(Workspace(root, root / "vendor" / "llama.cpp")):
    print("held", flush=True)
    time.sleep(600)
"""
APPLY = """
import sys
from pathlib import Path
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system import lock
from qlutattn_patch.tree.worktree import apply
from qlutattn_patch.workspace import Workspace
lock.PATIENCE = 600  # however slow the other one is
root = Path(sys.argv[1])
print(apply(Workspace(root, root / "vendor" / "llama.cpp"), load_series(root / "patches")))
"""


def start(code: str, root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, str(root)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_waiting_command_says_so_and_goes_on_at_once_when_the_other_is_killed(project):
    generate(project.workspace, project.repository).write()
    with start(HOLD, project.root) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with start(APPLY, project.root) as waiting:
            assert waiting.stderr is not None
            assert f"Another qlutattn command is working on {project.tree}: waiting up to" in waiting.stderr.readline()
            assert waiting.poll() is None
            assert not (project.tree / "tools").exists()
            holder.kill()
            killed = time.monotonic()
            assert waiting.communicate() == ("True\n", "")
            assert time.monotonic() - killed < 300
    assert waiting.returncode == 0
    assert (project.tree / "tools").exists()


def test_two_applies_at_once_are_one_after_the_other(project):
    generate(project.workspace, project.repository).write()
    with start(APPLY, project.root) as one, start(APPLY, project.root) as other:
        said = sorted([one.communicate()[0], other.communicate()[0]])
    assert said == ["False\n", "True\n"]  # the second one finds nothing to do
    assert (one.returncode, other.returncode) == (0, 0)


BUILD = """
import sys, time
from pathlib import Path
from qlutattn_patch.tree.worktree import at_rest
from qlutattn_patch.workspace import Workspace
root = Path(sys.argv[1])
with at_rest(Workspace(root, root / "vendor" / "llama.cpp")):  # as a build does
    print("building", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("command", ["apply", "revert", "vendor"])
def test_what_changes_the_tree_waits_for_a_running_build(command, project):
    generate(project.workspace, project.repository).write()
    if command != "apply":
        apply(project.workspace, load_series(project.workspace.patches))
    if command == "vendor":
        edit(project.upstream / "LICENSE", "MIT", "MIT, newer")
        git(project.upstream, "commit", "--quiet", "--all", "-m", "newer")
        write_pin(project.root, project.upstream)
    before = snapshot(project.tree)
    argv = [sys.executable, "-m", "qlutattn_patch", command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", BUILD, str(project.root)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as build:  # fmt: skip
        assert build.stdout is not None
        assert build.stdout.readline() == "building\n"
        with subprocess.Popen(argv, cwd=project.root, env=environment, stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stderr is not None
            said = waiting.stderr.readline()
            assert (
                said == f"· Another qlutattn command is working on {project.tree} or its build: waiting up to 3600 s.\n"
            )
            assert waiting.poll() is None
            assert snapshot(project.tree) == before
            build.communicate("\n")
            waiting.communicate()
    assert waiting.returncode == 0
    assert snapshot(project.tree) != before
