"""This machine, as far as results depend on it: what its processor is called and what it can do."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from qlutattn_patch.system import process

_CPUINFO = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """The processor's name, as the system gives it."""
    lines = _lines()
    if not lines and (sysctl := process.find("sysctl")):
        lines = [f"model name: {process.capture([sysctl, '-n', 'machdep.cpu.brand_string']).stdout}"]
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((name for name in names if name), "") or platform.processor() or platform.machine()


def digest() -> str:
    """A digest of what the processor can do, as far as the system says; clock rates and the like are left out."""
    named = ("model name", "flags", "Features", "CPU part")
    lines = {line for line in _lines() if line.startswith(named)}
    return hashlib.sha256(repr((platform.system(), platform.machine(), sorted(lines))).encode()).hexdigest()


def _lines() -> list[str]:
    try:
        return _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
