"""What each preset gives to cmake, and where it can run."""

from __future__ import annotations

from pathlib import Path

import fake_tools
import pytest
from build_helpers import Bench, definitions, on

from qlutattn_patch.building import presets
from qlutattn_patch.system.errors import ExpectedError

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


def test_a_preset_for_another_machine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    on("aarch64", monkeypatch)
    with pytest.raises(ExpectedError, match="The preset 'avx2' is for x86_64, and this machine is arm64"):
        bench.build("avx2")
    assert bench.configures == 0


def test_an_unknown_preset(bench: Bench) -> None:
    with pytest.raises(ExpectedError, match="There is no preset 'fast'"):
        bench.build("fast")
