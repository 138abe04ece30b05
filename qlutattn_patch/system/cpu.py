"""This machine's processor: its name, and a digest of its features."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from qlutattn_patch.system import process

_CPUINFO = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """The processor's name, as the system reports it."""
    lines = _lines()
    if not lines and (sysctl := process.find("sysctl")):
        lines = [f"model name: {process.capture([sysctl, '-n', 'machdep.cpu.brand_string']).stdout}"]
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((name for name in names if name), "") or platform.processor() or platform.machine()


def digest() -> str:
    """A digest of the processor's features as the system reports them, without variable values such as clock rates."""
    named = ("model name", "flags", "Features", "CPU part")
    lines = {line for line in _lines() if line.startswith(named)}
    return hashlib.sha256(repr((platform.system(), platform.machine(), sorted(lines))).encode()).hexdigest()


def _lines() -> list[str]:
    try:
        return _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
