"""A tree to build with programs that stand in for cmake, ninja and the compilers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import fake_tools
import pytest

from qlutattn_patch.building import cmake, presets
from qlutattn_patch.workspace import Workspace

TOOLS = ("cc", "c++", "cmake", "ninja")


@dataclass(frozen=True)
class Bench:
    """A patched-looking tree, and a PATH with nothing but stand-ins."""

    bin: Path
    workspace: Workspace

    def build(self, preset: str = "native", *targets: str, **options: object) -> cmake.BuildTree:
        return cmake.build(self.workspace, preset, targets or (presets.DEFAULT_TARGET,), **options)  # type: ignore[arg-type]

    def calls(self, job: str) -> list[dict[str, object]]:
        return [call for call in fake_tools.calls(self.bin, "cmake") if job in call["argv"]]  # type: ignore[operator]

    @property
    def configures(self) -> int:
        return len(self.calls("-S"))


def on(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets.platform, "machine", lambda: machine)


def definitions(call: dict[str, object]) -> dict[str, str]:
    argv: list[str] = call["argv"]  # type: ignore[assignment]
    return dict(arg[2:].split("=", 1) for arg in argv if arg.startswith("-D"))


def untouched(bench: Bench) -> bool:
    """Whether no build tree was made."""
    return not list(bench.workspace.tree.glob("build*"))
