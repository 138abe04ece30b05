"""The build presets: cmake definitions and compiler flags."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qlutattn_patch.system.errors import ExpectedError

DEFAULT_TARGET = "align_attn"
PROFILE = "profile"
ARM64_SYSROOT = Path("/usr/aarch64-linux-gnu")
ARM64_TRIPLE = "aarch64-linux-gnu"
ARM64_TOOLCHAIN_FILE = Path(__file__).resolve().parent / "data" / f"{ARM64_TRIPLE}.cmake"

_PATCHED = {"GGML_QLUTATTN": "ON", "GGML_TMAC": "ON"}
_X86_SETS = (
    *("SSE42", "AVX", "AVX_VNNI", "AVX2", "BMI2", "FMA", "F16C"),
    *("AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16", "AMX_TILE", "AMX_INT8", "AMX_BF16"),
)
_OTHER_SETS = ("LASX", "LSX", "RVV", "RV_ZFH", "RV_ZVFH", "RV_ZICBOP", "RV_ZIHINTPAUSE", "XTHEADVECTOR", "VXE")


def _instruction_sets(*wanted: str) -> dict[str, str]:
    """Definitions that enable exactly these instruction sets."""
    return {
        "GGML_NATIVE": "OFF",
        **{f"GGML_{name}": "ON" if name in wanted else "OFF" for name in (*_X86_SETS, *_OTHER_SETS)},
    }


@dataclass(frozen=True)
class Preset:
    """One way to build the tree."""

    name: str
    summary: str
    definitions: Mapping[str, str]
    flags: str = ""  # CFLAGS and CXXFLAGS
    clang: bool = False  # requires clang; else CC and CXX, or cmake's default
    machine: str | None = None  # target machine; None is this machine
    type: str = "Release"
    cross: Mapping[str, str] = field(default_factory=dict)  # extra definitions for cross-compilation

    @property
    def is_cross(self) -> bool:
        """Whether programs of the preset need an emulator on this machine."""
        return self.machine is not None and self.machine != host_machine()


def _sanitizer(name: str, summary: str, kinds: str, clang: bool = False) -> Preset:
    return Preset(
        name,
        summary,
        # The flags go to every compile and link, the program's too. Without OpenMP, ggml's own threads are checked.
        # NDEBUG as in a release: upstream's assert()s refuse the NaN and Inf that align_attn feeds on purpose.
        {
            **_PATCHED,
            "GGML_OPENMP": "OFF",
            "CMAKE_C_FLAGS_DEBUG": "-O1 -g -DNDEBUG",
            "CMAKE_CXX_FLAGS_DEBUG": "-O1 -g -DNDEBUG",
        },
        flags=f"-fsanitize={kinds} -fno-sanitize-recover=all -fno-omit-frame-pointer",
        clang=clang,
        type="Debug",
    )


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("native", "for this machine's CPU, with CC and CXX or the default compiler", _PATCHED),
        Preset(
            "arm64",
            "clang -march=armv8.7a; cross-compiled for qemu-user unless this machine is arm64",
            {
                "GGML_GRAPH_PROFILER": "OFF",
                "GGML_CUDA": "OFF",
                "GGML_TMAC": "ON",
                "LLAMA_TORCH": "ON",
                "GGML_QLUTATTN": "ON",
            },
            flags="-march=armv8.7a",
            clang=True,
            machine="arm64",
            # The sysroot has no OpenMP and OpenSSL; ggml has its own threads.
            cross={
                "CMAKE_TOOLCHAIN_FILE": str(ARM64_TOOLCHAIN_FILE),
                "GGML_OPENMP": "OFF",
                "LLAMA_OPENSSL": "OFF",
            },
        ),
        Preset("scalar", "no SIMD beyond what every CPU of this kind has", {**_PATCHED, **_instruction_sets()}),
        Preset(
            "avx2",
            "x86 with AVX2, FMA, F16C and BMI2, and nothing newer",
            {**_PATCHED, **_instruction_sets("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C")},
            machine="x86_64",
        ),
        Preset(PROFILE, "as native, with the graph profiler", {**_PATCHED, "GGML_GRAPH_PROFILER": "ON"}),
        Preset("vulkan", "as native, with the Vulkan backend", {**_PATCHED, "GGML_VULKAN": "ON"}),
        Preset("rpc", "as native, with the backend for devices of other machines", {**_PATCHED, "GGML_RPC": "ON"}),
        _sanitizer("asan", "AddressSanitizer and UndefinedBehaviorSanitizer", "address,undefined"),
        _sanitizer("tsan", "ThreadSanitizer", "thread"),
        # Traced comparisons take most of the time, and no input is compared with magic numbers.
        _sanitizer(
            "fuzz",
            "as asan, with clang, for libFuzzer",
            "address,undefined,fuzzer-no-link -fno-sanitize-coverage=trace-cmp",
            clang=True,
        ),
    )
}


def preset(name: str) -> Preset:
    """The preset with this name."""
    if name not in PRESETS:
        raise ExpectedError(f"There is no preset '{name}'.", f"choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def host_machine() -> str:
    """This machine's instruction set family, by its canonical name."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "aarch64": "arm64"}.get(name, name)
