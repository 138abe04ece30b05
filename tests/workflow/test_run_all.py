"""The main job, as a person would run it: everything, twice, and on the other architecture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import documents
import effort
import pytest
from helpers import ROOT

from qlutattn_patch.commands import main
from qlutattn_patch.workspace import Workspace


def job(*argv: str) -> tuple[dict[str, Any], str]:
    """Run a command that ends in align's report: its JSON, and what it said of its progress."""
    argv = (sys.executable, "-m", "qlutattn_patch", *argv, "--json")
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout[-4000:]
    document = json.loads(done.stdout)
    documents.check(document)
    return document, done.stderr


def program(preset: str) -> Path:
    return Workspace.find().build_dir(preset) / "bin" / "align_attn"


@pytest.mark.compiler
@pytest.mark.core
def test_the_main_job_twice() -> None:
    report, said = job("run")
    assert (report["ok"], report["failed"], report["preset"]) == (True, 0, "native")
    assert report["passed"] == len(report["cases"]) > 100
    assert all(f"[{number}/5]" in said for number in range(1, 6))
    built = program("native").stat().st_mtime_ns
    again, said = job("run", "--quick")
    assert "configuring" not in said
    assert program("native").stat().st_mtime_ns == built
    assert again["series"] == report["series"]


@pytest.mark.compiler
@pytest.mark.nightly
def test_without_simd() -> None:
    report, _ = job("run", "--preset", "scalar", *([] if effort.thorough else ["--quick"]))
    assert report["ok"]
    commands = (Workspace.find().build_dir("scalar") / "build.ninja").read_text(encoding="utf-8")
    assert "-mavx" not in commands
    assert "-march=native" not in commands


# each type on each side; other pairs of them run the same code
PAIRS = "^k(8v8|4v4|2v2|1v1|4v2|2v8)-"


@pytest.mark.compiler
@pytest.mark.nightly
@pytest.mark.parametrize(("preset", "flag"), [("asan", "-fsanitize=address,undefined"), ("tsan", "-fsanitize=thread")])
def test_the_sanitizers_find_nothing(preset: str, flag: str) -> None:
    assert main.run(["apply"]) == 0
    assert main.run(["build", "--preset", preset, "--target", "align_attn"]) == 0
    report, _ = job("align", "--preset", preset, "--quick", *([] if effort.thorough else ["--filter", PAIRS]))
    assert (report["ok"], report["failed"], report["preset"]) == (True, 0, preset)
    assert flag in (Workspace.find().build_dir(preset) / "build.ninja").read_text("utf-8")


@pytest.mark.qemu
@pytest.mark.nightly
def test_the_main_job_on_arm64() -> None:
    report, _ = job("run", "--preset", "arm64", *([] if effort.thorough else ["--quick"]))
    assert (report["ok"], report["failed"], report["preset"]) == (True, 0, "arm64")
    assert report["passed"] > 100
    assert program("arm64").read_bytes()[18:20] == b"\xb7\x00"  # EM_AARCH64
