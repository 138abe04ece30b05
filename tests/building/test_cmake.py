"""The build trees: what is configured when and why, and how a failure is told. Stand-ins first, real tools below."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import fake_tools
import pytest

from qlutattn_patch.building import cmake, presets, toolchain
from qlutattn_patch.building.origin import HEADER
from qlutattn_patch.building.stamp import Stamp, read_stamp
from qlutattn_patch.system import process
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.workspace import Workspace

TOOLS = ("cc", "c++", "cmake", "ninja")


@dataclass(frozen=True)
class Bench:
    """A patched-looking tree, and a PATH with nothing but stand-ins."""

    bin: Path
    workspace: Workspace

    def build(self, preset: str = "native", *targets: str, **options: object) -> cmake.BuildTree:
        return cmake.build(self.workspace, preset, targets or (presets.DEFAULT_TARGET,), **options)  # type: ignore[arg-type]

    def calls(self, job: str) -> list[dict[str, object]]:
        return [call for call in fake_tools.calls(self.bin, "cmake") if job in call["argv"]]  # type: ignore[operator]

    @property
    def configures(self) -> int:
        return len(self.calls("-S"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    tree = tmp_path / "mein llämä"
    (tree / "tools" / "align-attn").mkdir(parents=True)
    (tree / "CMakeLists.txt").touch()
    folder = tmp_path / "bin ü"
    fake_tools.install(folder, *TOOLS)
    monkeypatch.setenv("PATH", str(folder))
    for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(toolchain.sysconfig, "get_path", lambda name: str(tmp_path / "pypi"))
    return Bench(folder, Workspace(root=tmp_path, tree=tree))


def on(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets.platform, "machine", lambda: machine)


def definitions(call: dict[str, object]) -> dict[str, str]:
    argv: list[str] = call["argv"]  # type: ignore[assignment]
    return dict(arg[2:].split("=", 1) for arg in argv if arg.startswith("-D"))


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


# --- what the presets give to cmake

OWNERS_LINE = {
    "CMAKE_C_COMPILER": "clang",
    "CMAKE_CXX_COMPILER": "clang++",
    "GGML_GRAPH_PROFILER": "OFF",
    "GGML_CUDA": "OFF",
    "GGML_TMAC": "ON",
    "LLAMA_TORCH": "ON",
    "GGML_QLUTATTN": "ON",
}
CROSS = {"CMAKE_TOOLCHAIN_FILE", "GGML_OPENMP", "LLAMA_OPENSSL"}


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_arm64_is_the_owners_line(bench: Bench, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on(machine, monkeypatch)
    fake_tools.install(bench.bin, "clang", "clang++")
    bench.build("arm64")
    (call,) = bench.calls("-S")
    given = definitions(call)
    assert OWNERS_LINE.items() <= given.items()
    assert call["argv"][call["argv"].index("-G") + 1] == "Ninja"  # type: ignore[index, attr-defined]
    env: dict[str, str] = call["env"]  # type: ignore[assignment]
    assert (env["CFLAGS"], env["CXXFLAGS"]) == ("-march=armv8.7a", "-march=armv8.7a")
    small = {name for name in given if name.startswith(("LLAMA_BUILD_", "LLAMA_USE_"))}
    more = given.keys() - OWNERS_LINE.keys() - small - {"CMAKE_BUILD_TYPE", "CMAKE_MAKE_PROGRAM", "GGML_CCACHE"}
    assert more == (CROSS if machine == "x86_64" else set())
    assert Path(presets.ARM64_TOOLCHAIN_FILE).is_file()


def test_scalar_and_avx2_name_every_instruction_set(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    on("x86_64", monkeypatch)
    bench.build("scalar")
    bench.build("avx2")
    scalar, avx2 = map(definitions, bench.calls("-S"))
    assert scalar["GGML_NATIVE"] == avx2["GGML_NATIVE"] == "OFF"
    sets = {name for name in scalar if name.startswith(("GGML_AVX", "GGML_AMX"))} | {"GGML_SSE42", "GGML_FMA"}
    assert len(sets) > 10
    assert {scalar[name] for name in sets} == {"OFF"}
    turned_on = {name for name in avx2 if avx2[name] == "ON"}
    assert turned_on == {
        *("GGML_QLUTATTN", "GGML_TMAC"),
        *("GGML_SSE42", "GGML_AVX", "GGML_AVX2", "GGML_FMA", "GGML_F16C", "GGML_BMI2"),
    }


def test_users_flags_come_first_and_never_into_a_cross_build(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    on("x86_64", monkeypatch)
    monkeypatch.setenv("CXXFLAGS", "-march=haswell")
    fake_tools.install(bench.bin, "clang", "clang++")
    bench.build("asan")
    bench.build("arm64")
    asan, arm64 = (call["env"] for call in bench.calls("-S"))
    assert asan["CXXFLAGS"].startswith("-march=haswell -fsanitize=address,undefined -fno-sanitize-recover=all")  # type: ignore[index]
    assert arm64["CXXFLAGS"] == "-march=armv8.7a"  # type: ignore[index]


def test_ccache_and_lld_are_used_when_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cmake.platform, "system", lambda: "Linux")
    fake_tools.install(bench.bin, "ccache", "ld.lld")
    bench.build()
    (call,) = bench.calls("-S")
    assert definitions(call)["CMAKE_CXX_COMPILER_LAUNCHER"] == str(bench.bin / "ccache")
    assert call["env"]["LDFLAGS"] == "-fuse-ld=lld"  # type: ignore[index]


def test_the_users_compilers_are_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tools.install(bench.bin, "my cc", "my++")
    monkeypatch.setenv("CC", f"'{bench.bin / 'my cc'}' -m64")
    monkeypatch.setenv("CXX", "my++")
    bench.build()
    (call,) = bench.calls("-S")
    assert call["env"]["CC"] == f"'{bench.bin / 'my cc'}' -m64"  # type: ignore[index]
    assert call["env"]["CXX"] == "my++"  # type: ignore[index]


# --- programs that are missing: one sentence, and nothing touched


def untouched(bench: Bench) -> bool:
    return not list(bench.workspace.tree.glob("build*"))


def test_no_compiler(bench: Bench) -> None:
    (bench.bin / "c++").unlink()
    fake_tools.install(bench.bin, "apt-get")
    with pytest.raises(ExpectedError, match="There is no C and C\\+\\+ compiler") as failure:
        bench.build()
    assert re.fullmatch(r"(sudo )?apt-get install -y g\+\+", failure.value.hint or "")
    assert untouched(bench)


def test_a_compiler_of_that_name_is_missing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExpectedError, match="The compiler 'clang' is not on PATH"):
        bench.build("arm64")
    monkeypatch.setenv("CXX", "nope++")
    with pytest.raises(ExpectedError, match="The compiler 'nope\\+\\+' is not on PATH"):
        bench.build()
    assert untouched(bench)


def test_a_compiler_that_can_not_link(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    on("x86_64", monkeypatch)
    fake_tools.install(bench.bin, "clang", "clang++", "apt-get")
    fake_tools.behaves(bench.bin, "clang++", 1, "")
    with pytest.raises(ExpectedError, match="arm64 sysroot may be missing") as failure:
        bench.build("arm64")
    assert "g++-aarch64-linux-gnu" in (failure.value.hint or "")
    assert bench.configures == 0


def test_a_preset_for_another_machine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    on("aarch64", monkeypatch)
    with pytest.raises(ExpectedError, match="The preset 'avx2' is for x86_64, and this machine is arm64"):
        bench.build("avx2")
    assert bench.configures == 0


def test_cmake_and_ninja_from_pypi_where_the_systems_are_old_or_absent(bench: Bench, tmp_path: Path) -> None:
    fake_tools.says(bench.bin, "cmake", "cmake version 3.13.4")
    (bench.bin / "ninja").unlink()
    with pytest.raises(ExpectedError, match=r"no cmake 3\.14 or newer") as failure:
        bench.build()
    assert failure.value.hint == "python -m pip install cmake"
    fake_tools.install(tmp_path / "pypi", "cmake", "ninja")
    bench.build()
    (call,) = fake_tools.calls(tmp_path / "pypi", "cmake")[:1]
    assert definitions(call)["CMAKE_MAKE_PROGRAM"] == str(tmp_path / "pypi" / "ninja")


def test_no_tree_and_no_patch(bench: Bench, tmp_path: Path) -> None:
    (bench.workspace.tree / "tools" / "align-attn").rmdir()
    with pytest.raises(ExpectedError, match="is not patched") as failure:
        bench.build()
    assert failure.value.hint == f"qlutattn apply --tree '{bench.workspace.tree}'"
    bench.build("native", "ggml")
    with pytest.raises(ExpectedError, match=r"There is no llama\.cpp in") as failure:
        cmake.build(Workspace(tmp_path, tmp_path / "vendor" / "llama.cpp"), "native")
    assert failure.value.hint == "qlutattn vendor"


def test_an_unknown_preset(bench: Bench) -> None:
    with pytest.raises(ExpectedError, match="There is no preset 'fast'"):
        bench.build("fast")


def test_the_runner_of_a_preset(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    on("aarch64", monkeypatch)
    assert toolchain.find_runner(presets.preset("arm64")) == ()
    on("x86_64", monkeypatch)
    assert toolchain.find_runner(presets.preset("asan")) == ()
    with pytest.raises(ExpectedError, match="needs qemu-aarch64"):
        toolchain.find_runner(presets.preset("arm64"))
    fake_tools.install(bench.bin, "qemu-aarch64-static")
    qemu = str(bench.bin / "qemu-aarch64-static")
    assert toolchain.find_runner(presets.preset("arm64")) == (qemu, "-L", "/usr/aarch64-linux-gnu")


# --- what ninja says

NINJA_FAILS = """\
[1/9] Building CXX object a.o
a.cpp: warning: harmless
FAILED: b.o
/usr/bin/c++ -Ivery -Ilong
b.cpp:1:1: error: first
    1 | x
[2/9] Building CXX object c.o
c.cpp: warning: harmless
FAILED: d.o
/usr/bin/c++ -Ivery -Ilong
d.cpp:1:1: error: second
ninja: build stopped: subcommand failed.
"""


def test_errors_are_shown_whole_and_last(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    fake_tools.behaves(bench.bin, "cmake--build", 1, NINJA_FAILS)
    with pytest.raises(ExpectedError, match=r"The build of align_attn failed in 2 place\(s\)") as failure:
        bench.build()
    err = capsys.readouterr().err
    told = ["FAILED: b.o", "b.cpp:1:1: error: first", "    1 | x", "FAILED: d.o", "d.cpp:1:1: error: second", ""]
    assert err.endswith("\n".join(told))
    assert "harmless" not in err
    log = re.search(r"output is in (.*qlutattn-build\.log)", failure.value.cause)
    assert log
    assert NINJA_FAILS in Path(log[1]).read_text(encoding="utf-8")


def test_an_unknown_target(bench: Bench) -> None:
    output = "ninja: error: unknown target 'align_atn', did you mean 'align_attn'?\n"
    fake_tools.behaves(bench.bin, "cmake--build", 1, output)
    with pytest.raises(ExpectedError, match="has no target 'align_atn'"):
        bench.build("native", "align_atn")


def test_a_failure_that_names_no_command_is_shown_too(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    fake_tools.behaves(bench.bin, "cmake--build", 137, "ninja: fatal: out of memory\n")
    with pytest.raises(ExpectedError, match="The build of align_attn failed;"):
        bench.build()
    assert capsys.readouterr().err.endswith("ninja: fatal: out of memory\n")


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
