"""A proof stands exactly as long as what it proved."""

from __future__ import annotations

from pathlib import Path

import pytest

from qlutattn_patch.align import Report
from qlutattn_patch.proof import remember, remembered
from qlutattn_patch.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(root=tmp_path, tree=tmp_path / "vendor" / "llama.cpp")
    programs = found.build_dir("native") / "bin"
    programs.mkdir(parents=True)
    (programs / "align_attn").write_bytes(b"program")
    (programs / "libggml-cpu.so.0").write_bytes(b"kernels")
    found.pin_file.parent.mkdir(exist_ok=True)
    found.pin_file.write_text("pin")
    return found


def report(ok: bool = True) -> Report:
    return Report({"ok": ok, "cases": [], "passed": 0, "failed": 0 if ok else 1}, (), "qlutattn align")


def test_stands_while_nothing_changes(workspace: Workspace) -> None:
    assert remembered(workspace, "native", quick=False) is None
    remember(workspace, "native", False, report())
    known = remembered(workspace, "native", quick=False)
    assert known is not None
    assert known[0] == report()


@pytest.mark.parametrize("name", ["align_attn", "libggml-cpu.so.0"])
def test_falls_with_a_built_file(workspace: Workspace, name: str) -> None:
    remember(workspace, "native", False, report())
    (workspace.build_dir("native") / "bin" / name).write_bytes(b"other")
    assert remembered(workspace, "native", quick=False) is None


def test_a_quick_one_proves_no_full_one(workspace: Workspace) -> None:
    remember(workspace, "native", True, report())
    assert remembered(workspace, "native", quick=False) is None


def test_falls_with_another_kernel(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    remember(workspace, "native", False, report())
    monkeypatch.setenv("GGML_QLUTATTN_KERNEL", "dot-scalar")
    assert remembered(workspace, "native", quick=False) is None


def test_a_failure_is_never_remembered(workspace: Workspace) -> None:
    remember(workspace, "native", False, report())
    remember(workspace, "native", False, report(ok=False))
    assert remembered(workspace, "native", quick=False) is None


def test_a_damaged_file_counts_as_none(workspace: Workspace) -> None:
    remember(workspace, "native", False, report())
    (workspace.build_dir("native") / "proof.json").write_text("{")
    assert remembered(workspace, "native", quick=False) is None
