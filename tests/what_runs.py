"""For `make test`: leave out the markers that cannot run here, order the others, and say what was left out."""

from __future__ import annotations

import pytest

from qlutattn_patch.building import doctor, install
from qlutattn_patch.workspace import Workspace

ORDER = ("vendored", "compiler", "qemu")
ARM64 = ("clang", "arm64 sysroot", "qemu-aarch64")


def pytest_configure(config: pytest.Config) -> None:
    reasons = _reasons()
    config.stash[_REASONS] = reasons
    asked = [f"({config.option.markexpr})"] if config.option.markexpr else []
    config.option.markexpr = " and ".join([*asked, *(f"not {marker}" for marker in reasons)])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(
        key=lambda item: max((ORDER.index(m.name) + 1 for m in item.iter_markers() if m.name in ORDER), default=0)
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    told = [f"{marker}: {why}" for marker, why in config.stash[_REASONS].items()]
    for report in terminalreporter.stats.get("skipped", []):
        told.append(f"{report.nodeid}: {report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr}")
    if told:
        terminalreporter.section("WHAT COULD NOT RUN HERE", sep="!", red=True)
        for line in told:
            terminalreporter.write_line(line)


_REASONS = pytest.StashKey[dict[str, str]]()


def _reasons() -> dict[str, str]:
    """For each marker that can not run: why, and how to get it."""
    workspace = Workspace.find()
    report = doctor.examine(workspace.root)
    lacking = {finding.name: finding.tool for finding in report.missing}
    if not (workspace.tree / ".git").exists():
        return dict.fromkeys(ORDER, "there is no vendor/llama.cpp; to get it: qlutattn vendor")
    if not report.ok:
        why = f"this machine lacks {', '.join(lacking)}; to get it: {report.install}"
        return dict.fromkeys(("compiler", "qemu"), why)
    arm64 = [name for name in ARM64 if name in lacking]
    if arm64:
        return {
            "qemu": f"this machine lacks {', '.join(arm64)}; to get it: {install.line(lacking[name] for name in arm64)}"
        }
    return {}
