"""What is known of the processor."""

from __future__ import annotations

from pathlib import Path

import fake_tools
import pytest

from qlutattn_patch.system import cpu


def test_the_cpu_has_a_name_and_a_digest() -> None:
    assert cpu.cpu_name().strip()
    assert cpu.digest() == cpu.digest()


def test_without_proc_the_system_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "nothing")
    fake_tools.write_program(tmp_path / "sysctl", "print('A Chip')\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert cpu.cpu_name() == "A Chip"
