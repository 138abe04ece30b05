"""For make's targets: leave out the tests that cannot run on this machine, and list what did not run and why."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from qlutattn_patch.building import doctor, install
from qlutattn_patch.workspace import Workspace

NEEDS = ("vendored", "compiler", "qemu")
ARM64 = ("clang", "arm64 sysroot", "qemu-aarch64")


class WhatRuns:
    """What was left out of this run: by marker, how many tests."""

    def __init__(self, reasons: dict[str, str], target: str) -> None:
        self._reasons = reasons
        self._target = target
        self._left_out: Counter[str] = Counter()

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        for item in items:
            markers = {mark.name for mark in item.iter_markers()}
            lacking = [name for name in NEEDS if name in markers and name in self._reasons]
            self._left_out[self._reasons[lacking[-1]] if lacking else self._target] += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["left_out"] = dict(self._left_out)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._left_out |= Counter(getattr(node, "workeroutput", {}).get("left_out", {}))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        lines = [f"{count} tests: {why}" for why, count in self._left_out.items() if why]
        for report in terminalreporter.stats.get("skipped", []):
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            lines.append(f"{report.nodeid}: {str(why).removeprefix('Skipped: ')}")
        if lines:
            terminalreporter.section("not run", sep="-", yellow=True)
            for line in lines:
                terminalreporter.write_line(line)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--left-out", default="", metavar="WHY", help="say this of the tests that -m leaves out")


def pytest_configure(config: pytest.Config) -> None:
    reasons = _reasons()
    asked = [f"({config.option.markexpr})"] if config.option.markexpr else []
    config.option.markexpr = " and ".join([*asked, *(f"not {marker}" for marker in reasons)])
    config.pluginmanager.register(WhatRuns(reasons, config.getoption("left_out")))


def _reasons() -> dict[str, str]:
    """For each marker whose tests cannot run: why, and how to change that."""
    workspace = Workspace.find()
    report = doctor.examine(workspace.root)
    lacking = {finding.name: finding.tool for finding in report.missing}
    required = [finding.name for finding in report.missing if finding.required]
    if not (workspace.tree / ".git").exists():
        return dict.fromkeys(NEEDS, "there is no vendor/llama.cpp; to get it: qlutattn vendor")
    if not report.ok:
        why = f"this machine lacks {', '.join(required)}; to get it: {install.line(lacking[name] for name in required)}"
        return dict.fromkeys(("compiler", "qemu"), why)
    arm64 = [name for name in ARM64 if name in lacking]
    if arm64:
        why = f"this machine lacks {', '.join(arm64)}; to get it: {install.line(lacking[name] for name in arm64)}"
        return {"qemu": why}
    return {}
