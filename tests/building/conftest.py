"""A tree to build, with stand-ins for all programs."""

from __future__ import annotations

from pathlib import Path

import fake_tools
import pytest
from build_helpers import TOOLS, Bench

from qlutattn_patch.building import toolchain
from qlutattn_patch.workspace import Workspace


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    tree = tmp_path / "mein llämä"
    (tree / "tools" / "align-attn").mkdir(parents=True)
    (tree / "CMakeLists.txt").touch()
    folder = tmp_path / "bin ü"
    fake_tools.install(folder, *TOOLS)
    monkeypatch.setenv("PATH", str(folder))
    for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(toolchain.sysconfig, "get_path", lambda name: str(tmp_path / "pypi"))
    return Bench(folder, Workspace(root=tmp_path, tree=tree))
