"""The vector kernels of every instruction set that can run here, against the plain ones, integer by integer."""

from __future__ import annotations

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
