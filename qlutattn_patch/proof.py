"""A report that passed stands while what it proved is unchanged: the built files, the checker, the machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from datetime import datetime, timezone
from pathlib import Path

from qlutattn_patch.align import Report
from qlutattn_patch.files import write_atomically
from qlutattn_patch.workspace import Workspace

_NAME = "proof.json"


def remembered(workspace: Workspace, preset: str, quick: bool) -> tuple[Report, str] | None:
    """The report that still stands, and when it was made; None if there is none."""
    try:
        found = json.loads(_file(workspace, preset).read_bytes())
        if found["schema"] != 1 or found["key"] != _key(workspace, preset, quick):
            return None
        return Report(found["report"], (), found["repeat"]), str(found["when"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(workspace: Workspace, preset: str, quick: bool, report: Report) -> None:
    """Keep a report that passed; anything else is forgotten."""
    file = _file(workspace, preset)
    if not report.ok:
        file.unlink(missing_ok=True)
        return
    when = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    key = _key(workspace, preset, quick)
    proof = {"schema": 1, "key": key, "when": when, "repeat": report.repeat, "report": report.json}
    write_atomically(file, json.dumps(proof).encode())


def _file(workspace: Workspace, preset: str) -> Path:
    return workspace.build_dir(preset) / _NAME


def _key(workspace: Workspace, preset: str, quick: bool) -> str:
    """A digest of everything that the report depends on."""
    programs = workspace.build_dir(preset) / "bin"
    package = Path(__file__).resolve().parent
    files = [*programs.glob("align_attn*"), *programs.glob("lib*"), *package.rglob("*.py"), workspace.pin_file]
    digest = hashlib.sha256(repr((quick, os.environ.get("GGML_QLUTATTN_KERNEL"), machine())).encode())
    for file in sorted(file for file in files if file.is_file()):
        digest.update(f"\0{file.name}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def machine() -> tuple[str, ...]:
    """What a processor can do, as far as the system says; clock rates and the like are left out."""
    lines: set[str] = set()
    if (info := Path("/proc/cpuinfo")).is_file():
        named = ("model name", "flags", "Features", "CPU part")
        lines = {
            line for line in info.read_text(encoding="utf-8", errors="replace").splitlines() if line.startswith(named)
        }
    return (platform.system(), platform.machine(), *sorted(lines))
