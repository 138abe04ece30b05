"""The build trees: what is configured when and why, and how a failure is told. Stand-ins first, real tools below."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import fake_tools
import pytest
from build_helpers import Bench, definitions

from qlutattn_patch.building import cmake, presets, toolchain
from qlutattn_patch.building.origin import HEADER
from qlutattn_patch.building.stamp import Stamp, read_stamp
from qlutattn_patch.system import process
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.workspace import Workspace

# --- configuring: once, and again for a reason


def test_the_second_build_does_not_configure(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    first = bench.build()
    assert first.path == bench.workspace.tree / "build-qlutattn-native"
    bench.build()
    assert (bench.configures, len(bench.calls("--build"))) == (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "reconfiguring" not in err


def test_another_compiler_is_noticed_and_said(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.build()
    fake_tools.says(bench.bin, "c++", "c++ version 10.0.0")
    bench.build()
    assert bench.configures == 2
    path = bench.bin / "c++"
    said = f"the C++ compiler changed from {path} (c++ version 9.8.7) to {path} (c++ version 10.0.0)"
    assert re.sub(r"\s+", " ", capsys.readouterr().err).count(f"because {said}") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("flags", "CFLAGS changed from nothing to -O0"),
        ("type", "CMAKE_BUILD_TYPE changed from Release to Debug"),
        ("ccache", "CMAKE_C_COMPILER_LAUNCHER changed from nothing to "),
        ("cmake", "the cmake changed from "),
        ("preset", "GGML_TMAC changed from ON to OFF"),
    ],
)
def test_every_part_of_the_recipe_is_noticed(
    bench: Bench, change: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.build()
    if change == "flags":
        monkeypatch.setenv("CFLAGS", "-O0")
    elif change == "ccache":
        fake_tools.install(bench.bin, "ccache")
    elif change == "cmake":
        fake_tools.says(bench.bin, "cmake", "cmake version 3.31.0")
    elif change == "preset":
        changed = presets.Preset("native", "", {"GGML_QLUTATTN": "ON", "GGML_TMAC": "OFF"})
        monkeypatch.setitem(presets.PRESETS, "native", changed)
    bench.build(type="Debug" if change == "type" else None)
    assert bench.configures == 2
    assert said in capsys.readouterr().err


def test_a_moved_tree_is_noticed(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.build()
    moved = bench.workspace.tree.rename(bench.workspace.tree.with_name("woanders"))
    cmake.build(Workspace(bench.workspace.root, moved), "native")
    assert f"the source tree changed from {bench.workspace.tree} to {moved}" in capsys.readouterr().err


def test_a_cache_is_made_from_nothing_but_objects_stay(bench: Bench) -> None:
    tree = bench.build()
    (tree.path / "CMakeCache.txt").write_text("GGML_OLD:BOOL=ON\n")
    (tree.path / "src").mkdir()
    (tree.path / "src" / "a.o").touch()
    fake_tools.says(bench.bin, "cc", "cc version 1.2.3")
    bench.build()
    assert (tree.path / "CMakeCache.txt").read_text() == ""
    assert (tree.path / "src" / "a.o").exists()


def test_an_unfinished_configure_is_done_again(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    fake_tools.behaves(bench.bin, "cmake-S", 1, "CMake Error: the moon is full\n")
    with pytest.raises(ExpectedError, match="could not configure"):
        bench.build()
    assert "CMake Error: the moon is full" in capsys.readouterr().err
    fake_tools.behaves(bench.bin, "cmake-S", 0, "")
    bench.build()
    assert "because its last configure did not finish" in capsys.readouterr().err
    bench.build()
    assert bench.configures == 2


def test_definitions_of_the_user_win_and_stay(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.build(definitions={"GGML_TMAC": "OFF", "GGML_BLAS": "ON"})
    bench.build()
    assert bench.configures == 1
    (call,) = bench.calls("-S")
    assert (definitions(call)["GGML_TMAC"], definitions(call)["GGML_BLAS"]) == ("OFF", "ON")
    folder = bench.build(definitions={"GGML_BLAS": ""}).path
    assert bench.configures == 2
    assert "GGML_BLAS changed from ON to nothing" in capsys.readouterr().err
    assert read_stamp(folder).chosen == {"GGML_TMAC": "OFF"}


def test_definitions_that_cannot_be_configured_do_not_stay(bench: Bench) -> None:
    folder = bench.build(definitions={"GGML_BLAS": "ON"}).path
    fake_tools.behaves(bench.bin, "cmake-S", 1, "CMake Error\n")
    with pytest.raises(ExpectedError, match="could not configure"):
        bench.build(definitions={"GGML_CUDA": "ON"})
    assert read_stamp(folder).chosen == {"GGML_BLAS": "ON"}


def test_what_was_built_is_written_down_until_it_is_built_again(bench: Bench) -> None:
    folder = bench.build().path
    assert read_stamp(folder).targets == {}  # the stand-ins build nothing
    (folder / "bin").mkdir()
    (folder / "bin" / "align_attn").write_bytes(b"program")
    bench.build()
    (built,) = read_stamp(folder).targets.values()
    assert (built.facts, built.changed(folder / "bin")) == (read_stamp(folder).facts, [])
    fake_tools.behaves(bench.bin, "cmake--build", 1, "FAILED: x\n")
    with pytest.raises(ExpectedError):
        bench.build("native", "bench_attn")
    assert read_stamp(folder).targets == {"align_attn": built}
    with pytest.raises(ExpectedError):
        bench.build()
    assert read_stamp(folder).targets == {}


def test_what_was_built_before_a_configure_is_still_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bench.build().path
    (folder / "bin").mkdir()
    (folder / "bin" / "align_attn").write_bytes(b"program")
    bench.build()
    before = read_stamp(folder)
    monkeypatch.setenv("CXXFLAGS", "-O1")
    bench.build("native", "ggml")
    after = read_stamp(folder)
    assert after.targets == before.targets
    assert after.facts["CXXFLAGS"] == "-O1"
    fake_tools.behaves(bench.bin, "cmake-S", 1, "")
    monkeypatch.setenv("CXXFLAGS", "-O2")
    with pytest.raises(ExpectedError):
        bench.build("native", "ggml")
    assert read_stamp(folder) == Stamp(targets=before.targets)


def test_the_header_is_there_before_the_build(bench: Bench) -> None:
    assert "QLUTATTN_TREE" not in (bench.build().path / HEADER).read_text()  # this tree is no checkout


def test_only_a_target_that_needs_the_tools_configures_them(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.build()
    assert definitions(bench.calls("-S")[-1])["LLAMA_BUILD_TOOLS"] == "OFF"
    bench.build("native", "llama-cli")
    assert definitions(bench.calls("-S")[-1])["LLAMA_BUILD_TOOLS"] == "ON"
    assert "because the target needs llama.cpp's tools\n" in capsys.readouterr().err
    bench.build()  # what has grown stays: the two must not take turns
    assert bench.configures == 2
    assert definitions(bench.calls("-S")[-1])["LLAMA_USE_PREBUILT_UI"] == "OFF"


def test_no_tree_and_no_patch(bench: Bench, tmp_path: Path) -> None:
    (bench.workspace.tree / "tools" / "align-attn").rmdir()
    with pytest.raises(ExpectedError, match="is not patched") as failure:
        bench.build()
    assert failure.value.hint == f"qlutattn apply --tree '{bench.workspace.tree}'"
    bench.build("native", "ggml")
    with pytest.raises(ExpectedError, match=r"There is no llama\.cpp in") as failure:
        cmake.build(Workspace(tmp_path, tmp_path / "vendor" / "llama.cpp"), "native")
    assert failure.value.hint == "qlutattn vendor"


# --- real tools


CMAKE_LISTS = """\
cmake_minimum_required(VERSION 3.14)
project(small C CXX)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
add_executable(align_attn main.cpp good.cpp)
"""


@pytest.fixture
def small(tmp_path: Path) -> Workspace:
    tree = tmp_path / "Bäume und Wälder"
    (tree / "tools" / "align-attn").mkdir(parents=True)
    (tree / "CMakeLists.txt").write_text(CMAKE_LISTS, encoding="utf-8")
    (tree / "main.cpp").write_text('#include <cstdio>\nint good();\nint main() { printf("%d\\n", good()); }\n')
    (tree / "good.cpp").write_text("int good() { return 42; }\n")
    return Workspace(root=tmp_path, tree=tree)


def run(program: Path, *runner: str) -> process.Result:
    return process.capture([*runner, program])


@pytest.mark.compiler
def test_a_real_build(small: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    built = cmake.build(small, "native")
    assert run(built.bin / "align_attn").stdout == "42\n"
    stamp = (built.bin / "align_attn").stat().st_mtime_ns
    capsys.readouterr()
    cmake.build(small, "native")
    assert (built.bin / "align_attn").stat().st_mtime_ns == stamp
    assert "configuring" not in capsys.readouterr().err
    (small.tree / "good.cpp").write_text("int good() { return fourty_two; }\n")
    with pytest.raises(ExpectedError, match="failed in 1 place"):
        cmake.build(small, "native")
    err = capsys.readouterr().err
    assert "fourty_two" in err[err.index("FAILED: ") :]
    assert "good.cpp:1:" in err


@pytest.mark.compiler
def test_a_real_build_with_the_programs_from_pypi(small: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    found = toolchain.shutil.which
    own = toolchain.sysconfig.get_path("scripts")
    hidden = ("cmake", "ninja")
    monkeypatch.setattr(
        toolchain.shutil,
        "which",
        lambda name, path=None: None if name in hidden and path != own else found(name, path=path),
    )
    assert toolchain.find_cmake().path.parent == Path(sys.executable).parent
    assert run(cmake.build(small, "native").bin / "align_attn").stdout == "42\n"


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("int a[2] = {1, 2}; volatile int i = 2; return a[i];", "out of bounds"),
        ("int * volatile p = new int(1); delete p; return *p;", "heap-use-after-free"),
    ],
)
def test_the_sanitizers_catch(small: Workspace, body: str, said: str) -> None:
    (small.tree / "good.cpp").write_text(f"int good() {{ {body} }}\n")
    result = run(cmake.build(small, "asan").bin / "align_attn")
    assert result.status != 0
    assert said in result.stderr


@pytest.mark.qemu
def test_a_real_arm64_build_runs_under_its_runner(small: Workspace) -> None:
    arm64 = presets.preset("arm64")
    program = cmake.build(small, "arm64").bin / "align_attn"
    assert program.read_bytes()[18:20] == b"\xb7\x00"  # EM_AARCH64
    assert run(program, *toolchain.find_runner(arm64)).stdout == "42\n"
