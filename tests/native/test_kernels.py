"""The vector kernels of every instruction set that can run here, against the plain ones; the kernel that is forced."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qlutattn_patch.commands import main
from qlutattn_patch.workspace import Workspace

NATIVE = Path(__file__).parent
SOURCES = ("tbl-simd.cpp", "tbl-scalar.cpp", "qlutattn-config.cpp")
X86 = platform.machine() in ("x86_64", "AMD64")
SIMDE = Path("/usr/include/simde/x86/avx512.h")


@pytest.fixture(scope="module")
def ggml() -> Path:
    """ggml in the project's own vendored tree, patched."""
    assert main.run(["apply"]) == 0
    return Workspace.find().tree / "ggml"


def compare(ggml: Path, program: Path, compiler: str, *flags: str, runner: tuple[str, ...] = ()) -> str:
    """The name of the kernels that a compiler makes with these flags, after comparing them."""
    kernels = ggml / "src" / "ggml-cpu" / "qlutattn"
    include = [f"-I{folder}" for folder in (ggml / "include", ggml / "src", kernels)]
    sources = [*(str(kernels / name) for name in SOURCES), str(NATIVE / "kernels.cpp")]
    command = [compiler, "-std=c++17", "-O2", *flags, *include, *sources, "-o", str(program)]
    subprocess.run(command, check=True)
    done = subprocess.run([*runner, str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[-1].endswith("products are the same")
    return lines[0]


@pytest.mark.compiler
@pytest.mark.skipif(not X86, reason="no x86")
def test_avx2(ggml: Path, tmp_path: Path) -> None:
    assert compare(ggml, tmp_path / "kernels", "c++", "-mavx2") == "avx2"


@pytest.mark.compiler
@pytest.mark.skipif(not X86, reason="no x86")
def test_avx2_with_sanitizers(ggml: Path, tmp_path: Path) -> None:
    flags = "-mavx2", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"
    assert compare(ggml, tmp_path / "kernels", "c++", *flags) == "avx2"


@pytest.mark.compiler
@pytest.mark.skipif(not X86, reason="no x86")
@pytest.mark.skipif(not SIMDE.exists(), reason="no SIMDe to emulate AVX-512 with: install libsimde-dev")
@pytest.mark.parametrize("vnni", [False, True])
def test_avx512_in_emulation(ggml: Path, tmp_path: Path, vnni: bool) -> None:
    emulation = ["-mavx2", "-mfma", "-w", "-include", str(NATIVE / "emulated-avx512.h")]
    found = compare(ggml, tmp_path / "kernels", "c++", *emulation, *(["-DEMULATED_VNNI"] if vnni else []))
    assert found == ("avx512-vnni" if vnni else "avx512")


@pytest.mark.qemu
@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")),
    reason="no g++-aarch64-linux-gnu and qemu-user",
)
@pytest.mark.parametrize(
    ("march", "name"), [("armv8-a", "neon"), ("armv8.2-a+dotprod", "neon-dotprod"), ("armv8.6-a", "neon-i8mm")]
)
def test_neon_under_qemu(ggml: Path, tmp_path: Path, march: str, name: str) -> None:
    runner = ("qemu-aarch64", "-cpu", "max")
    found = compare(ggml, tmp_path / "kernels", "aarch64-linux-gnu-g++", f"-march={march}", "-static", runner=runner)
    assert found == name


def worst_of_exp(ggml: Path, program: Path, compiler: str, *flags: str, runner: tuple[str, ...] = ()) -> float:
    """The largest error of the softmax's exp, in units in the last place."""
    sources = ggml / "src", ggml / "src" / "ggml-cpu", ggml / "src" / "ggml-cpu" / "qlutattn", ggml / "include"
    include = [f"-I{folder}" for folder in sources]
    subprocess.run(
        [compiler, "-std=c++17", "-O2", *flags, *include, str(NATIVE / "exp.cpp"), "-o", str(program)], check=True
    )
    done = subprocess.run([*runner, str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    found = re.match(r"exp\(-inf\) = 0; off by ([\d.]+) at most", done.stdout)
    assert found, done.stdout
    return float(found[1])


@pytest.mark.compiler
@pytest.mark.skipif(not X86, reason="no x86")
def test_exp_of_avx2(ggml: Path, tmp_path: Path) -> None:
    assert 0.5 < worst_of_exp(ggml, tmp_path / "exp", "c++", "-mavx2", "-mfma", "-mf16c") <= 2


@pytest.mark.qemu
@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")),
    reason="no g++-aarch64-linux-gnu and qemu-user",
)
def test_exp_of_neon_under_qemu(ggml: Path, tmp_path: Path) -> None:
    worst = worst_of_exp(ggml, tmp_path / "exp", "aarch64-linux-gnu-g++", "-static", runner=("qemu-aarch64",))
    assert 0.5 < worst <= 2


@pytest.fixture(scope="module")
def forced(ggml: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The program that prints what is forced, of a build with lookup kernels and of one without."""
    sources = [NATIVE / "forced.cpp", ggml / "src" / "ggml-cpu" / "qlutattn" / "qlutattn-env.cpp"]
    include = [f"-I{folder}" for folder in (ggml / "include", ggml / "src", sources[1].parent)]
    folder = tmp_path_factory.mktemp("forced")
    for name, flags in (("lut", ["-DGGML_USE_TMAC"]), ("dot", [])):
        subprocess.run(["c++", "-std=c++17", *flags, *include, *sources, "-o", folder / name], check=True)
    return {name: folder / name for name in ("lut", "dot")}


ALL, DOT = "lut, dot, lut-scalar or dot-scalar", "dot or dot-scalar"


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("build", "value", "found", "names"),
    [
        ("lut", None, "none fastest", None),
        ("lut", "", "none fastest", None),
        ("lut", "lut", "lut fastest", None),
        ("lut", "dot", "dot fastest", None),
        ("lut", "lut-scalar", "lut scalar", None),
        ("lut", "dot-scalar", "dot scalar", None),
        ("lut", "x-scalar", "none fastest", ALL),
        ("lut", "LUT", "none fastest", ALL),
        ("dot", "dot-scalar", "dot scalar", None),
        ("dot", "lut-scalar", "none fastest", DOT),
    ],
)
def test_the_environment_forces_a_kernel_or_is_ignored_aloud(
    forced: dict[str, Path], build: str, value: str | None, found: str, names: str | None
) -> None:
    others = {key: text for key, text in os.environ.items() if key != "GGML_QLUTATTN_KERNEL"}
    env = others if value is None else {**others, "GGML_QLUTATTN_KERNEL": value}
    done = subprocess.run([forced[build]], env=env, capture_output=True, text=True, check=True)
    first, second, *said = done.stdout.splitlines()
    assert (first, second) == (found, found)
    told = f"qlutattn: this build has no kernel '{value}', GGML_QLUTATTN_KERNEL is ignored: set it to {names}"
    assert said == ([told] if names else [])
