"""Builds and results, played by files, for the tests of status."""

from __future__ import annotations

import pytest
from upstream_projects import add_proof

from qlutattn_patch.building import results
from qlutattn_patch.building.origin import read_origin
from qlutattn_patch.building.stamp import Stamp, built_now
from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.tree.worktree import apply

GCC = {"C++ compiler": "/usr/bin/c++ (gcc 12)", "CXXFLAGS": "", "CMAKE_BUILD_TYPE": "Release"}


def put_build(project, facts=GCC, program=b"program"):
    """A build of the tree as it is."""
    folder = project.workspace.build_dir("native")
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    (folder / "bin" / "align_attn").write_bytes(program)
    (folder / "bin" / "bench_attn").write_bytes(program)
    origin = read_origin(project.workspace)
    targets = {name: built_now(folder / "bin", name, facts, origin) for name in ("align_attn", "bench_attn")}
    Stamp(facts, targets).write(folder)
    return folder


def put_results(project, ok=True):
    report = {"ok": ok, "passed": int(ok), "failed": int(not ok), "cases": []}
    results.keep(project.workspace, "native", results.ALIGN, report)
    results.keep(project.workspace, "native", results.BENCH, {"rows": [{}, {}], "arguments": ["--work", "pack"]})


@pytest.fixture
def made(project):
    generate(project.workspace, project.repository).write()
    return project


@pytest.fixture
def applied(made):
    apply(made.workspace, load_series(made.workspace.patches))
    return made


@pytest.fixture
def built(project):
    add_proof(project)
    generate(project.workspace, project.repository).write()
    apply(project.workspace, load_series(project.workspace.patches))
    put_build(project)
    put_results(project)
    return project
