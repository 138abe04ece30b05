"""Ctrl-C, and the signals that ask to end: exit code 130, one line, no child left, nothing half written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import fake_tools
import pytest
from helpers import ROOT, Project, git, snapshot
from releases import BACKEND, make_release, only_index, pin_release

from qlutattn_patch.building.origin import read_origin
from qlutattn_patch.building.stamp import Stamp, built_now

START = """
import sys
from pathlib import Path
from qlutattn_patch.workspace import Workspace
find, root = Workspace.find.__func__, Path(sys.argv.pop(1))
Workspace.find = classmethod(lambda cls, tree=None: find(cls, tree, root))
from qlutattn_patch.__main__ import main
main()
"""
SAID = "error: Interrupted.\n  next: run the same command again\n"
MARK = "QLUTATTN_TEST_CHILD_OF"
LONG = 600.0  # seconds, in which even a loaded machine comes to an end


@dataclass
class Command:
    """A command on a project, in a process of its own, whose children can be told from all others."""

    project: Project
    bin: Path
    temporary: Path
    mark: str
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *argv: str) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(self.bin), os.environ["PATH"]])
        mine = {"PATH": path, "TMPDIR": str(self.temporary), MARK: self.mark, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [sys.executable, "-c", START, str(self.project.root), *argv],
            env={**os.environ, **mine, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def children(self, parent: int) -> list[str]:
        """The command lines of all processes that descend from this command, but for itself."""
        found = []
        for process in Path("/proc").iterdir():
            try:
                if not process.name.isdecimal() or int(process.name) == parent:
                    continue
                if f"{MARK}={self.mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it ended meanwhile, or is not ours
                continue
        return found

    def interrupted(self, *argv: str, by: int = signal.SIGINT, once: Callable[[], bool]) -> None:
        """Start, wait until a child is where it will stay, interrupt the command alone, and see how that ends."""
        process = self.start(*argv)
        until = time.monotonic() + LONG
        while not once():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until, "it never came that far"
            time.sleep(0.02)
        assert self.children(process.pid)
        os.kill(process.pid, by)
        out, err = process.communicate(timeout=LONG)
        assert process.returncode == 130, err
        assert out == ""
        assert err.endswith(SAID)
        assert "Traceback" not in err
        assert self.children(process.pid) == []
        assert list(self.temporary.iterdir()) == []


pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="children are looked for in /proc")


@pytest.fixture
def command(project: Project, tmp_path: Path) -> Command:
    for name in ("bin", "tmp"):
        (tmp_path / name).mkdir()
    return Command(project, tmp_path / "bin", tmp_path / "tmp", f"{tmp_path.name}-{os.getpid()}")


def stuck_git(command: Command, word: str) -> Callable[[], bool]:
    """A git that does not come back from what has this word; says when it is there."""
    real, here = shutil.which("git"), command.bin.parent / "here"
    stays = f"for word; do [ \"$word\" != {word} ] || {{ : > '{here}'; exec sleep 600; }}; done"
    (command.bin / "git").write_text(f'#!/bin/sh\n{stays}\nexec "{real}" "$@"\n', encoding="utf-8")
    (command.bin / "git").chmod(0o755)
    return here.exists


def stuck_program(path: Path, here: Path, when: str = "True") -> Callable[[], bool]:
    """A program that starts another one, of which it waits for the end; says when it is there."""
    child = "subprocess.run(['sleep', '600'])"
    fake_tools.write_program(
        path, f"import pathlib, subprocess, sys\nif {when}:\n    pathlib.Path({str(here)!r}).touch()\n    {child}\n"
    )
    return here.exists


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_vendor(command: Command, by: int) -> None:
    shutil.rmtree(command.project.tree)
    command.interrupted("vendor", by=by, once=stuck_git(command, "write-tree"))
    assert not command.project.tree.exists()
    assert sorted(path.name for path in (command.project.root / "vendor").iterdir()) == [".lock", "llama.cpp.toml"]


def test_vendor_at_any_time(command: Command) -> None:
    """Wherever the interrupt comes, the tree is not there, or whole; the next command makes it."""
    ends = set()
    for tenths in range(0, 10, 2):
        shutil.rmtree(command.project.tree, ignore_errors=True)
        process = command.start("--verbose", "vendor")
        assert process.stderr is not None
        first = process.stderr.readline()
        assert first.startswith("$ "), first
        time.sleep(tenths / 10)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LONG)
        assert (process.returncode, err.endswith(SAID)) in ((130, True), (0, False)), err
        assert "Traceback" not in err
        assert command.children(process.pid) == []
        assert command.project.tree.exists() or process.returncode == 130
        if command.project.tree.exists():
            assert git(command.project.tree, "status", "--porcelain") == ""
        assert not list((command.project.root / "vendor").glob(".new-*"))
        ends.add(process.returncode)
    assert 130 in ends
    process = command.start("vendor")
    assert process.communicate(timeout=LONG)[0] == ""
    assert process.returncode == 0
    assert git(command.project.tree, "status", "--porcelain") == ""


def test_generate(command: Command) -> None:
    before = snapshot(command.project.root)
    command.interrupted("generate", once=stuck_git(command, "format-patch"))
    after = snapshot(command.project.root)
    after.pop("vendor/llama.cpp/.git/qlutattn/lock")
    assert after == before


def test_build_with_stand_ins(command: Command) -> None:
    fake_tools.install(command.bin, "cc", "c++", "ninja", "real-cmake")
    proof = command.project.tree / "tools" / "align-attn"
    proof.mkdir(parents=True)
    # answers as the stand-in does, but does not come back from building
    once = stuck_program(command.bin / "cmake", command.bin.parent / "here", "'--build' in sys.argv")
    text = (command.bin / "cmake").read_text(encoding="utf-8")
    rest = f"else:\n    import os\n    os.execv({str(command.bin / 'real-cmake')!r}, ['real-cmake', *sys.argv[1:]])\n"
    (command.bin / "cmake").write_text(text + rest, encoding="utf-8")
    command.interrupted("build", once=once)


@pytest.mark.compiler
def test_build(command: Command) -> None:
    """cmake, ninja and a compiler, which waits for its source: a pipe that nobody writes to."""
    tools = command.project.tree / "tools" / "align-attn"
    tools.mkdir(parents=True)
    text = (
        "cmake_minimum_required(VERSION 3.14)\nproject(x C CXX)\nadd_executable(align_attn tools/align-attn/main.cpp)"
    )
    (command.project.tree / "CMakeLists.txt").write_text(text + "\n", encoding="utf-8")
    source = tools / "main.cpp"
    os.mkfifo(source)
    command.environment["CCACHE_DISABLE"] = "1"

    def compiling() -> bool:
        return any("cc1plus" in line or " -cc1 " in line for line in command.children(0) if "main.cpp" in line)

    command.interrupted("build", once=compiling)
    assert not list((command.project.root / "build").rglob("main.cpp.o"))


def test_align(command: Command) -> None:
    build = command.project.workspace.build_dir("native")
    (build / "bin").mkdir(parents=True)
    once = stuck_program(build / "bin" / "align_attn", command.bin.parent / "here")
    (command.project.tree / "tools" / "align-attn").mkdir(parents=True, exist_ok=True)
    made = built_now(build / "bin", "align_attn", {}, read_origin(command.project.workspace))
    Stamp({}, {"align_attn": made}).write(build)
    command.interrupted("align", once=once)
    assert sorted(path.name for path in build.iterdir()) == ["bin", "qlutattn-build.json"]


def test_matrix(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While pip runs the release's own code, as it does to learn its name."""
    index, here = only_index(tmp_path / "index", monkeypatch), tmp_path / "here"
    stays = f"import pathlib, subprocess\npathlib.Path({str(here)!r}).touch()\nsubprocess.run(['sleep', '600'])\n"
    monkeypatch.setattr("releases.BACKEND", stays + BACKEND)
    pin_release(command.project, make_release(index, "0.1"), "0.1")
    before = snapshot(command.project.root)
    command.interrupted("matrix", "--until", "applied", "0.1", once=here.exists)
    assert snapshot(command.project.root) == before
    archives = Path(os.environ["QLUTATTN_CACHE"]) / "archives"
    assert [path.name for path in archives.iterdir()] == [".lock"]


def test_while_the_modules_are_loading(command: Command, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    done = subprocess.run(
        [sys.executable, "-m", "qlutattn_patch", "types"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", SAID)


@pytest.mark.parametrize("argv", [["types"], ["types", "--json"], ["--help"], ["--version"]], ids=" ".join)
def test_a_reader_that_has_enough(command: Command, argv: list[str]) -> None:
    """`qlutattn types | head -1`, where the pipe is closed before anything is written."""
    process = command.start(*argv)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(LONG) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
