"""What a shell is offered, asked as it asks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, Project, write_files
from releases import make_release, only_index, pin_release

SHELLS = ("bash", "zsh", "fish")
CODE = """
import sys
from pathlib import Path
from qlutattn_patch.workspace import Workspace
find, root = Workspace.find.__func__, Path({root!r})
Workspace.find = classmethod(lambda cls, tree=None: find(cls, tree, root))
from qlutattn_patch.__main__ import main
main()
"""


def offered(project: Project, line: str, shell: str = "bash") -> list[str]:
    """The words that complete the last one of a line."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    if shell == "fish":
        asked = {"COMP_WORDS": line, "COMP_CWORD": words[-1]}
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(root=str(project.root))],
        env={**os.environ, "PYTHONPATH": str(ROOT), "_QLUTATTN_COMPLETE": f"{shell}_complete", **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if line]
    return [line.partition(",")[2] for line in lines] if shell == "bash" else lines


def test_commands_and_options(project: Project) -> None:
    assert offered(project, "qlutattn re") == ["revert", "report", "rebase"]
    assert "--until" in offered(project, "qlutattn matrix --u")
    assert "--quiet" in offered(project, "qlutattn build --q")


def test_presets_and_stages(project: Project) -> None:
    assert offered(project, "qlutattn build --preset a") == ["arm64", "avx2", "asan"]
    assert offered(project, "qlutattn matrix --until a") == ["applied", "aligned"]


def test_lists_of_caches(project: Project) -> None:
    assert offered(project, "qlutattn eval --types q8") == ["q8_0"]
    assert offered(project, "qlutattn eval --types q8_0,K4V2") == ["q8_0,K4V2", "q8_0,K4V2+w256+s128"]
    assert "K4" in offered(project, "qlutattn eval --types K4")
    assert offered(project, "qlutattn eval --types f16,f1") == []
    assert offered(project, "qlutattn bench --types f16,w") == ["f16,w512"]
    assert "K4" not in offered(project, "qlutattn bench --types K4")


def test_targets_are_those_of_the_tree(project: Project) -> None:
    cmake = {
        "tools/server/CMakeLists.txt": "set(TARGET llama-server)\nadd_executable(${TARGET} main.cpp)\n",
        "tools/ü ü/CMakeLists.txt": "add_executable(llama-one one.cpp)\n",
        "examples/two/CMakeLists.txt": "  set( TARGET llama-two )\n",
    }
    write_files(project.tree, cmake)
    assert offered(project, "qlutattn build --target ll") == ["llama-two", "llama-server", "llama-one"]
    assert offered(project, "qlutattn profile -- llama-s") == ["llama-server"]
    assert offered(project, "qlutattn build --target be") == ["bench_attn", "bench_sampling"]


def test_releases_are_those_in_the_cache(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = only_index(tmp_path / "index", monkeypatch)
    pin_release(project, make_release(index, "0.10"), "0.10")
    folder = Path(os.environ["QLUTATTN_CACHE"]) / "upstreams" / "releases"
    write_files(folder, {f"tiny-llama-{version}.json": "{}" for version in ("0.2", "0.9", "0.10")})
    write_files(folder, {"tiny-llama-0.2.lock": "", "other-7.json": ""})
    for line in ("matrix ", "matrix 0.2 ", "rebase ", "bisect ", "bisect 0.2 "):
        assert offered(project, f"qlutattn {line}") == ["0.10", "0.9", "0.2"], line


def test_a_project_that_cannot_be_read_completes_nothing(project: Project) -> None:
    shutil.rmtree(project.root / "templates")
    project.workspace.pin_file.unlink()
    for line in ("eval --types K", "build --target x", "matrix 0"):
        assert offered(project, f"qlutattn {line}") == [], line


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_asks_in_its_way(project: Project, shell: str) -> None:
    assert "avx2" in "\n".join(offered(project, "qlutattn build --preset av", shell))


def line_for(page: str, shell: str) -> str:
    """The line that a page says to type."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = [line for line in text.splitlines() if re.match(rf'(eval "\$\()?qlutattn completion {shell}', line)]
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_documented_line_teaches_the_shell(tmp_path: Path, shell: str) -> None:
    """The real shell takes what the line gives it, and then asks us."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    (tmp_path / "qlutattn").write_text(f"#!/bin/sh\nexec '{sys.executable}' -m qlutattn_patch \"$@\"\n")
    (tmp_path / "qlutattn").chmod(0o755)
    asks = {
        "bash": "COMP_WORDS=(qlutattn build --preset av) COMP_CWORD=3; _qlutattn_completion qlutattn; echo $COMPREPLY",
        "zsh": "words=(qlutattn build --preset av); CURRENT=4; compadd() { print $completions }; $_comps[qlutattn]",
        "fish": "complete --do-complete 'qlutattn build --preset av'",
    }[shell]
    first = "autoload -U compinit; compinit -u -D\n" if shell == "zsh" else ""
    done = subprocess.run(
        [
            program,
            *{"zsh": ["-f"], "bash": ["--norc"], "fish": ["--no-config"]}[shell],
            "-c",
            f"{first}{line_for('cli.md', shell)}\n{asks}",
        ],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert "avx2" in done.stdout
