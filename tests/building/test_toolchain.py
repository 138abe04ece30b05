"""The programs that a build uses; one that is missing is one sentence, and nothing is touched."""

from __future__ import annotations

import re
from pathlib import Path

import fake_tools
import pytest
from build_helpers import Bench, definitions, on, untouched

from qlutattn_patch.building import cmake, presets, toolchain
from qlutattn_patch.system.errors import ExpectedError


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
