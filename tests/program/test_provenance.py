"""The whole chain on the real tree: align_attn and bench_attn say what status says, and learn it without a rebuild."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from helpers import edit

from qlutattn_patch.building import cmake, toolchain
from qlutattn_patch.building.origin import HEADER
from qlutattn_patch.commands import main
from qlutattn_patch.workspace import Workspace

pytestmark = pytest.mark.compiler
NEAR = ("templates", "series", "upstream", "tree")


def status(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    assert main.run(["status", "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def said(program: Path, tmp_path: Path) -> dict[str, str]:
    """What a program says of itself, twice: as lines and as JSON."""
    argv = [program, "--version", "--json", tmp_path / "versiön.json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[1:])
    found: dict[str, str] = json.loads((tmp_path / "versiön.json").read_text(encoding="utf-8"))
    unknown = "unknown" if found["tree"] else "unknown (built without qlutattn)"
    assert {name: value or unknown for name, value in found.items()} == lines
    return found


def test_the_programs_say_what_status_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["apply"]) == 0
    tree = cmake.build(Workspace.find(), "native", ("align_attn", "bench_attn"))
    found = status(capsys)
    chain, pin = found["chain"], found["pin"]
    (targets,) = [build["targets"] for build in chain["builds"] if build["preset"] == "native"]  # type: ignore[index]
    for target in ("align_attn", "bench_attn"):
        own = said(tree.bin / target, tmp_path)
        assert own["templates"] == chain["templates"]  # type: ignore[index]
        assert own["series"] == found["series"]
        assert own["upstream"] == pin["commit"]  # type: ignore[index]
        assert own["tree"] == chain["tree"]["result"]  # type: ignore[index]
        assert {name: own[name] for name in NEAR} == targets[target]["origin"]
        assert own["build_type"] == "Release"
        assert own["cpu"]
    assert not [item for item in found["stale"] if item["link"].startswith("tree -> native")]  # type: ignore[attr-defined]


def test_edits_and_builds_by_hand_are_told_and_recompile_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.find()
    assert main.run(["apply"]) == 0
    tree = cmake.build(workspace, "native")
    clean = said(tree.bin / "align_attn", tmp_path)
    readme = workspace.tree / "README.md"
    whole = readme.read_bytes()
    try:
        edit(readme, "llama.cpp", "llama.cpp!")  # a file that nothing is compiled from: only the digest is new
        assert "tree -> native: align_attn" in [item["link"] for item in status(capsys)["stale"]]  # type: ignore[attr-defined]
        cmake.build(workspace, "native")
        assert said(tree.bin / "align_attn", tmp_path)["tree"].startswith(f"{clean['tree']}+")
        log = tree.log.read_text(encoding="utf-8").split("--build")[-1]
        assert "provenance.cpp.o" in log
        assert log.count("Building CXX object") == 1
        assert "Building C object" not in log
        (tree.path / HEADER).unlink()  # as plain cmake finds it in an empty folder
        by_hand = [toolchain.find_cmake().path, "--build", tree.path, "--target", "align_attn"]
        subprocess.run([by_hand[0], tree.path], check=True, capture_output=True)
        subprocess.run(by_hand, check=True, capture_output=True)
        assert {said(tree.bin / "align_attn", tmp_path)[name] for name in NEAR} == {None}
    finally:
        readme.write_bytes(whole)
        cmake.build(workspace, "native")
    assert said(tree.bin / "align_attn", tmp_path) == clean
