"""Projects with releases of their own and stand-ins for tools: for the tests of matrix, rebase, status and faults."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fake_tools
import pytest
from align_helpers import dump_case, write_dump
from helpers import Project, edit
from releases import copy_from, make_release, only_index, pin_release

from qlutattn_patch.building import toolchain
from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.tree.vendor import vendor
from qlutattn_patch.tree.worktree import apply
from qlutattn_patch.upstream import releases
from qlutattn_patch.upstream.pin import load_pin
from qlutattn_patch.workspace import Workspace, cache_dir

NEWER = {"LICENSE": "MIT, newer\n"}
LONGER = {"CMakeLists.txt": "project(llama.cpp)\n# new\nadd_subdirectory(ggml)\n"}
BROKEN = {
    "CMakeLists.txt": "project(llama.cpp)\nadd_subdirectory(ggml EXCLUDE_FROM_ALL)\n",
    "ggml/src/ggml.c": '#include "ggml.h" // first\n',
}
SAYS = "## [0.2]\n\n- update llama.cpp to ggml-org/llama.cpp@abcdef012\n"


def release(project: Project, version: str) -> releases.Upstream:
    return releases.release(load_pin(project.workspace.pin_file), version, cache_dir())


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin ü"
    fake_tools.install(folder, "cc", "c++", "cmake", "ninja")
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(toolchain.sysconfig, "get_path", lambda name: str(tmp_path / "pypi"))
    return folder


def add_proof(project: Project) -> None:
    """Templates that bring a tools/align-attn, which is all that a build asks for."""
    path = project.workspace.templates / "hooks" / "align.toml"
    edit(path, '["tools/', '["tools/align-attn/main.c", "tools/')
    (project.workspace.templates / "overlay" / "tools" / "align-attn").mkdir()
    (project.workspace.templates / "overlay" / "tools" / "align-attn" / "main.c").write_text("int main;\n")


def put_align(project: Project, version: str, ok: bool = True) -> None:
    """An align_attn in the build folder of a release, which reports one case."""
    bin = release(project, version).folder / "build-qlutattn-native" / "bin"
    bin.mkdir(parents=True)
    case = dump_case(tiles=0)
    write_dump(bin / "dump", [case])
    types = {name: case[name] for name in ("id", "type_k", "type_v")}
    results = {"schema": 1, "ok": ok, "isa": [], "cases": [{**types, "ok": ok, "faults": ["too far"]}]}
    (bin / "json").write_text(json.dumps(results))
    script = f'#!/bin/sh\n/bin/cp "{bin}/json" "$2"\n/bin/cp "{bin}/dump" "$4"\nexit {int(not ok)}\n'
    (bin / "align_attn").write_text(script)
    (bin / "align_attn").chmod(0o755)


def built(tools: Path) -> list[list[str]]:
    """The targets of each build."""
    calls = [call["argv"] for call in fake_tools.calls(tools, "cmake") if "--build" in call["argv"]]  # type: ignore[operator]
    return [argv[argv.index("--target") + 1 : argv.index("--parallel")] for argv in calls]  # type: ignore[index]


@pytest.fixture
def pinned_project(project: Project, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project at the release 0.1, patched; 0.2 moves lines in a file that is patched, and all tools are stand-ins."""
    index = copy_from(only_index(tmp_path / "index", monkeypatch), monkeypatch)
    git_source = '\n[[source]]\nkind = "git"\nurl = "https://example.org/llama.cpp.git"\n'
    pin_release(project, make_release(index, "0.1"), "0.1", git_source)
    edit(project.workspace.pin_file, "schema = 1", "# The pin, in words.\nschema = 1")
    make_release(index, "0.2", {**NEWER, **LONGER}, SAYS)
    make_release(index, "0.3", BROKEN)
    add_proof(project)
    shutil.rmtree(project.tree)
    vendor(project.workspace)
    generate(project.workspace, project.repository).write()
    apply(project.workspace, load_series(project.workspace.patches))
    put_align(project, "0.2")
    find = Workspace.find.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: find(cls, tree, project.root)))
    return project
