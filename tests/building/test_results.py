"""A result stands exactly as long as all that it is a result of; why it no longer does is said in words."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers import parsed

from qlutattn_patch.building import results
from qlutattn_patch.building.origin import Origin
from qlutattn_patch.building.results import ALIGN, BENCH, EVAL, file_of, keep, load_fresh, read
from qlutattn_patch.building.stamp import Stamp, built_now
from qlutattn_patch.proof import align
from qlutattn_patch.system import cpu
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.records import plain
from qlutattn_patch.workspace import Workspace

GCC = {"C++ compiler": "/usr/bin/c++ (gcc 12)", "CXXFLAGS": "", "CMAKE_BUILD_TYPE": "Release"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "Größe 1"
    found = Workspace(root, root / "vendor" / "llama.cpp")
    programs = found.build_dir("native") / "bin"
    programs.mkdir(parents=True)
    for name in ("align_attn", "bench_attn", "llama-perplexity", "libggml-cpu.so.0", "libllama.so.0"):
        (programs / name).write_bytes(b"built")
    stamp(found, GCC, Origin(tree="t1"))
    return found


def stamp(workspace: Workspace, facts: Mapping[str, str], origin: Origin) -> None:
    """Write down what the programs that are there were built with and from."""
    folder = workspace.build_dir("native")
    targets = {target: built_now(folder / "bin", target, facts, origin) for target in results.TARGETS.values()}
    Stamp(facts, {name: built for name, built in targets.items() if built}).write(folder)


def put(workspace: Workspace, ok: bool = True, part: bool = False) -> None:
    keep(workspace, "native", ALIGN, report(ok), part)


def report(ok: bool = True) -> dict[str, Any]:
    of = {"upstream": None, "series": None, "build": None, "preset": "native", "isa": []}
    return {"schema": 1, "ok": ok, **of, "passed": int(ok), "failed": int(not ok), "faults": [], "cases": []}


def why(workspace: Workspace, kind: str = ALIGN) -> list[str]:
    found = read(workspace.build_dir("native"), kind)
    assert found is not None
    return found.why_stale(workspace.build_dir("native"))


def test_stands_while_nothing_changes(workspace: Workspace) -> None:
    assert read(workspace.build_dir("native"), ALIGN) is None
    assert align.load_fresh(workspace, "native", quick=False) is None
    put(workspace)
    assert why(workspace) == []
    known = align.load_fresh(workspace, "native", quick=False)
    assert known is not None
    assert (plain(known[0].document), known[0].repeat) == (report(), "qlutattn align --preset native")


@pytest.mark.parametrize("name", ["align_attn", "libggml-cpu.so.0"])
def test_falls_with_a_built_file(workspace: Workspace, name: str) -> None:
    put(workspace)
    (workspace.build_dir("native") / "bin" / name).write_bytes(b"another")
    assert why(workspace) == ["it is of another build"]
    assert load_fresh(workspace, "native", ALIGN) is None


def test_a_library_of_the_model_is_no_business_of_align(workspace: Workspace) -> None:
    put(workspace)
    keep(workspace, "native", EVAL, {})
    (workspace.build_dir("native") / "bin" / "libllama.so.0").write_bytes(b"another")
    assert (why(workspace), why(workspace, EVAL)) == ([], ["it is of another build"])


def test_a_file_that_was_only_touched_is_the_same(workspace: Workspace) -> None:
    put(workspace)
    program = workspace.build_dir("native") / "bin" / "align_attn"
    os.utime(program, (1, 1))
    assert why(workspace) == []
    program.write_bytes(b"BUILT")
    os.utime(program, (2, 2))
    assert why(workspace) == ["it is of another build"]


@pytest.mark.parametrize(
    ("facts", "origin", "said"),
    [
        ({"C++ compiler": "/usr/bin/c++ (gcc 14)"}, {}, "the C++ compiler changed from /usr/bin/c++ (gcc 12) to"),
        ({"CXXFLAGS": "-O1"}, {}, "CXXFLAGS changed from nothing to -O1"),
        ({"CMAKE_BUILD_TYPE": "Debug"}, {}, "CMAKE_BUILD_TYPE changed from Release to Debug"),
        ({}, {"templates": "x", "tree": "t2"}, "(the templates)"),
        ({}, {"series": "x", "tree": "t2"}, "(the patches)"),
        ({}, {"upstream": "x", "tree": "t2"}, "(llama.cpp)"),
        ({}, {"tree": "t1+edits"}, "(files of the tree)"),
    ],
)
def test_another_build_is_told_apart(
    workspace: Workspace, facts: dict[str, str], origin: dict[str, str], said: str
) -> None:
    keep(workspace, "native", BENCH, {"rows": []})
    (workspace.build_dir("native") / "bin" / "bench_attn").write_bytes(b"another")
    stamp(workspace, GCC | facts, Origin(**{"tree": "t1"} | origin))
    (reason,) = why(workspace, BENCH)
    assert reason.startswith("it is of another build (")
    assert said in reason


def test_falls_on_another_cpu(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(cpu, "_CPUINFO", info)
    info.write_text("model name\t: First CPU\nflags\t\t: avx2\ncpu MHz\t\t: 1\n")
    put(workspace)
    info.write_text("model name\t: First CPU\nflags\t\t: avx2\ncpu MHz\t\t: 2\n")
    assert why(workspace) == []
    info.write_text("model name\t: Second CPU\nflags\t\t: avx2 avx512f\n")
    assert why(workspace) == ["it was taken on another CPU (First CPU; this is Second CPU)"]


def test_a_report_of_an_older_qlutattn_does_not_stand(workspace: Workspace) -> None:
    keep(workspace, "native", ALIGN, {key: value for key, value in report().items() if key != "faults"})
    assert load_fresh(workspace, "native", ALIGN) is not None
    assert align.load_fresh(workspace, "native", quick=False) is None


def test_falls_with_another_kernel(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GGML_QLUTATTN_KERNEL", raising=False)
    put(workspace)
    monkeypatch.setenv("GGML_QLUTATTN_KERNEL", "dot")
    assert why(workspace) == ["GGML_QLUTATTN_KERNEL was not set, now it is dot"]


def test_falls_with_the_checker_which_times_do_not_have(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    put(workspace)
    keep(workspace, "native", BENCH, {"rows": []})
    monkeypatch.setattr(results, "_CHECKER_PACKAGES", ("proof",))
    assert why(workspace) == ["the program that checks it has changed"]
    assert why(workspace, BENCH) == []


def test_falls_with_the_model(workspace: Workspace, tmp_path: Path) -> None:
    model = tmp_path / "M.gguf"
    model.write_bytes(b"model")
    keep(workspace, "native", EVAL, {"rows": []}, inputs=(model,))
    assert why(workspace, EVAL) == []
    model.write_bytes(b"another model")
    assert why(workspace, EVAL) == [f"{model} has changed"]
    model.unlink()
    assert why(workspace, EVAL) == [f"{model} has changed"]


def test_a_part_proves_no_whole_and_does_not_replace_one(workspace: Workspace) -> None:
    put(workspace, part=True)
    assert load_fresh(workspace, "native", ALIGN) is None
    assert load_fresh(workspace, "native", ALIGN, part=True) is not None
    put(workspace)
    put(workspace, part=True)
    assert load_fresh(workspace, "native", ALIGN) is not None
    put(workspace, ok=False, part=True)
    found = read(workspace.build_dir("native"), ALIGN)
    assert found is not None
    assert (found.ok, found.part) == (False, True)


def test_a_failure_never_stands(workspace: Workspace) -> None:
    put(workspace)
    put(workspace, ok=False)
    assert load_fresh(workspace, "native", ALIGN) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema": 2}', '{"schema": 1, "kind": "align"}', "cut", "bench"]
)
def test_a_file_that_is_not_whole_or_not_ours_is_said_to_be_none(workspace: Workspace, text: str) -> None:
    put(workspace)
    keep(workspace, "native", BENCH, {"rows": []})
    folder = workspace.build_dir("native")
    whole = file_of(folder, ALIGN).read_text()
    prepared = {"cut": whole[:-20], "bench": file_of(folder, BENCH).read_text()}
    file_of(folder, ALIGN).write_text(prepared.get(text, text))
    with pytest.raises(ExpectedError, match=r"qlutattn-align\.json is incomplete, or not a result of align"):
        read(folder, ALIGN)
    assert load_fresh(workspace, "native", ALIGN) is None


def test_every_kind_has_a_command_that_makes_its_first_result(workspace: Workspace) -> None:
    assert results.COMMANDS.keys() == results.TARGETS.keys()
    for kind, command in results.COMMANDS.items():
        parsed(list(command))
        file_of(workspace.build_dir("native"), kind).write_text("cut")
        with pytest.raises(ExpectedError) as raised:
            read(workspace.build_dir("native"), kind)
        assert raised.value.hint == " ".join(["qlutattn", *command])


def test_a_build_of_unknown_making_has_results_too(workspace: Workspace) -> None:
    folder = workspace.build_dir("native")
    (folder / "qlutattn-build.json").unlink()
    put(workspace)
    found = read(folder, ALIGN)
    assert found is not None
    assert (found.of.facts, found.of.origin, why(workspace)) == ({}, Origin(), [])
    assert json.loads(file_of(folder, ALIGN).read_text())["of"]["files"].keys() == {"align_attn", "libggml-cpu.so.0"}
