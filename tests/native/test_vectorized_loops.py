"""Loops that the compiler is trusted to vectorise, marked in the source, are vectorised for each instruction set."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MARK = "// vectorized"
CROSS = "aarch64-linux-gnu-g++"
FLAGS = ("-O3", "-DNDEBUG", "-std=c++17", "-ffp-contract=off", "-funroll-loops")
TARGETS = {
    "avx2": ("g++", "-mavx2", "-mfma", "-mf16c"),
    "avx512": ("g++", "-march=x86-64-v4", "-mavx512vnni"),
    "neon": (CROSS, "-march=armv8.6-a"),
}


def has(target: tuple[str, ...]) -> bool:
    """Whether a compiler is there and knows the flags."""
    probe = [*target, "-x", "c++", "-E", "/dev/null"]
    return shutil.which(target[0]) is not None and subprocess.run(probe, capture_output=True).returncode == 0


def marked(source: Path) -> set[int]:
    """The lines of a file that end with the mark."""
    lines = source.read_text(encoding="utf-8").splitlines()
    return {at for at, line in enumerate(lines, 1) if line.endswith(MARK)}


def vectorized(source: Path, target: tuple[str, ...]) -> set[int]:
    """The lines whose loops gcc reports as vectorised."""
    folders = [source.parent / up for up in (".", "..", "../..", "../../../include")]
    include = [f"-I{folder}" for folder in folders]
    done = subprocess.run(
        [*target, *FLAGS, "-fopt-info-vec-optimized", *include, "-c", source, "-o", "/dev/null"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = rf"^{re.escape(str(source))}:(\d+):\d+: optimized:\s+loop vectorized"
    return {int(found[1]) for found in re.finditer(report, done.stderr + done.stdout, re.MULTILINE)}


@pytest.mark.compiler
@pytest.mark.parametrize("name", TARGETS)
def test_marked_loops_are_vectorized(name: str, tree: Path) -> None:
    if not has(TARGETS[name]):
        pytest.skip(f"no gcc that compiles for {name}: {TARGETS[name][0]}")
    folder = tree / "ggml" / "src" / "ggml-cpu" / "qlutattn"
    sources = {source: lines for source in folder.glob("*.cpp") if (lines := marked(source))}
    assert {source.stem for source in sources} == {"attend", "qlutattn", "tbl-simd", "unpack"}
    for source, lines in sources.items():
        assert lines <= vectorized(source, TARGETS[name]), source.name


@pytest.mark.compiler
@pytest.mark.skipif(not has(TARGETS["avx2"]), reason="no gcc for x86")
def test_a_loop_that_is_not_vectorized_is_found(tmp_path: Path) -> None:
    source = tmp_path / "loops.cpp"
    source.write_text(
        "bool any(const float * x, int n) {\n"
        f"    for (int i = 0; i < n; i++) {{ {MARK}\n"
        "        if (x[i] != x[i]) {\n            return true;\n        }\n    }\n    return false;\n}\n"
        "void twice(float * x, int n) {\n"
        f"    for (int i = 0; i < n; i++) {{ {MARK}\n"
        "        x[i] *= 2;\n    }\n}\n",
        encoding="utf-8",
    )
    assert marked(source) == {2, 10}
    assert vectorized(source, TARGETS["avx2"]) == {10}
