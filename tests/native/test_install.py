"""`qlutattn install` into an empty folder, and a program that is built against what is there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import ROOT
from shell_blocks import blocks

from qlutattn_patch.building import toolchain
from qlutattn_patch.commands import main

pytestmark = [pytest.mark.compiler, pytest.mark.slow]

CMAKE = """\
cmake_minimum_required(VERSION 3.14)
project(mine CXX)
find_package(llama REQUIRED)
add_executable(mine mine.cpp)
target_link_libraries(mine llama)
"""
PROGRAM = """\
#include "ggml-qlutattn.h"
#include "llama-qlutattn.h"
#include "llama.h"
#include <cstdio>
int main() {
    llama_qlutattn_set_kv_window(64);
    printf("%u %d\\n", llama_qlutattn_get_kv_window(), ggml_is_qlutattn(GGML_TYPE_QLUTATTN_K4_128x128));
}
"""


def test_a_program_finds_the_installed_libraries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/install.md: libraries, headers and CMake packages, moved after they were installed."""
    (block,) = (block for block in blocks(ROOT / "docs" / "install.md") if "install ~" in block.script)
    _, words = (shlex.split(command) for command in block.commands)
    place = tmp_path / "there"
    assert main.run(["apply"]) == 0
    assert main.run([str(place) if word.startswith("~") else word for word in words[1:]]) == 0
    assert re.search(rf"{place / 'lib'}: \d+ files", capsys.readouterr().out)
    moved = place.rename(tmp_path / "moved")
    source = tmp_path / "mine"
    source.mkdir()
    (source / "CMakeLists.txt").write_text(CMAKE)
    (source / "mine.cpp").write_text(PROGRAM)
    cmake = toolchain.find_cmake().path
    for argv in (["-B", "b", f"-DCMAKE_PREFIX_PATH={moved}"], ["--build", "b"]):
        done = subprocess.run([cmake, *argv], cwd=source, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert subprocess.run(["b/mine"], cwd=source, capture_output=True, text=True, check=True).stdout == "64 1\n"
    shutil.rmtree(moved)


@pytest.mark.nightly
def test_the_installed_tools_run_where_they_are(tmp_path: Path) -> None:
    assert main.run(["apply"]) == 0
    assert main.run(["install", str(tmp_path / "there")]) == 0
    moved = (tmp_path / "there").rename(tmp_path / "moved")
    for name in ("llama-server", "llama-cli", "llama-bench"):
        done = subprocess.run([moved / "bin" / name, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "qlutattn_k4_128x128" in done.stdout or name == "llama-bench"
